"""What is shown beside figures: a sequence with its odd ones marked, and attention to explore with the mouse.

The attention widget is CircuitsVis's, taken from the installed package and sent to the page once, so that it
works without a network.
"""

import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from IPython.display import display
from jaxtyping import Float
from torch import Tensor

_CHIP = (
    "display:inline-block;min-width:1.4em;padding:1px 2px;border-radius:3px;text-align:center;"
    "font-family:monospace;font-size:.9em;border:1px solid rgba(128,128,128,.45)"
)
_ODD = "background:rgba(214,69,39,.28);border-color:rgba(214,69,39,.9);font-weight:bold"
_SPACE = "\u2423"  # an open box: a page draws a space alone as nothing
_sent_with: str | None = None  # the widget that carried the bundle to this kernel's page


def display_sequence(tokens: Sequence[str], mirrored: bool = False, note: str = "") -> None:
    """Shows a sequence in one line, with a note after it.

    With `mirrored`, the values that differ from their mirror image are marked, in colour and as ``[5]`` in
    plain text; the first and the last token, which only mark the ends, are left out. In the page a space is
    drawn as an open box.
    """
    last = len(tokens) - 1
    odd = [mirrored and 0 < i < last and token != tokens[last - i] for i, token in enumerate(tokens)]
    plain = " ".join(f"[{token}]" if marked else token for token, marked in zip(tokens, odd, strict=True))
    shown = [escape(token.replace(" ", _SPACE)) for token in tokens]
    chips = "\n".join(
        f'<span style="{_CHIP};{_ODD}"><b>{token}</b></span>'
        if marked
        else f'<span style="{_CHIP}">{token}</span>'
        for token, marked in zip(shown, odd, strict=True)
    )
    data = {
        "text/plain": f"{plain}   ({note})" if note else plain,
        "text/html": f"<div>{chips}{f' <i>{escape(note)}</i>' if note else ''}</div>",
    }
    display(data, raw=True)


def attention_heads(
    patterns: Float[Tensor, "head query key"], tokens: Sequence[str], names: Sequence[str]
) -> None:
    """Shows attention patterns to explore: hover over a head to see it alone, over a token to see its attention.

    Drawn by the page itself; where it cannot be drawn, a line says what it is. Tag the cell `drop-output`: the
    output is too large to keep, and a figure beside it shows the same.
    """
    if patterns.shape != (len(names), len(tokens), len(tokens)):
        raise ValueError(
            f"`patterns` has shape {tuple(patterns.shape)}; expected ({len(names)}, {len(tokens)}, "
            f"{len(tokens)}): (head, query, key) for {len(names)} names and {len(tokens)} tokens"
        )
    # The widget writes tokens as HTML, one right beside the other.
    properties = {
        "attention": [_rounded(pattern) for pattern in patterns],
        "tokens": [f"\u00a0{escape(token)}\u00a0" for token in tokens],
        "headLabels": list(names),
    }
    display(
        {"text/plain": _about(names, tokens), "text/html": _widget("AttentionPatterns", properties)}, raw=True
    )


def _rounded(pattern: Float[Tensor, "query key"]) -> list[list[float]]:
    return [[round(weight, 3) for weight in row] for row in pattern.detach().float().cpu().tolist()]


def _about(names: Sequence[str], tokens: Sequence[str]) -> str:
    return f"Attention of the heads {', '.join(names)} on {len(tokens)} tokens (interactive figure)."


def _widget(element: str, properties: dict[str, object]) -> str:
    """The HTML of a CircuitsVis element, the same for the same properties."""
    global _sent_with
    data = json.dumps(properties).replace("</", "<\\/")  # nothing in it may end the script
    name = "cv-" + hashlib.sha256((element + data).encode()).hexdigest()[:12]
    # In Colab every output is a page of its own. Elsewhere the first widget brings the bundle for all; when its
    # cell is run again, perhaps because the page was loaded again, it brings it again.
    in_colab = "google.colab" in sys.modules
    if in_colab or _sent_with in (None, name):
        loader = _loader()
        _sent_with = name
    else:
        loader = ""
    return f"""<div class="{name}" style="margin:12px 0;padding:6px 10px;background:white;color:#222">
Interactive figure: run the cell of the lesson's first interactive figure, then this cell.</div>
<script>{loader}(async () => {{
  const box = document.querySelector("div.{name}:not([data-drawn])");
  if (!box) return;
  box.dataset.drawn = 1;
  box.id = "{name}-" + Math.random().toString(36).slice(2);
  for (let i = 0; i < 100 && !window.circuitsVisReady; i++) await new Promise(done => setTimeout(done, 100));
  if (!window.circuitsVisReady) {{ delete box.dataset.drawn; return; }}
  const vis = await window.circuitsVisReady;
  box.textContent = "";
  vis.render(box.id, vis.{element}, {data});
}})();</script>"""


@cache
def _loader() -> str:
    """JavaScript that unpacks the package's bundle into `window.circuitsVisReady`, once on a page."""
    bundle = (files("circuitsvis") / "dist" / "cdn" / "iife.js").read_bytes()
    packed = base64.b64encode(gzip.compress(bundle, 9, mtime=0)).decode()
    return (
        "window.circuitsVisReady ??= (async () => {"
        f"const packed = Uint8Array.from(atob('{packed}'), c => c.charCodeAt(0));"
        "const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));"
        "return new Function(await new Response(stream).text() + '; return CircuitsVis;')();})();"
    )
