"""The checks of lesson 03, sections 4 to 8: one row of attention, what it says, who reads it, and how to mend it."""

from functools import partial
from typing import Any

import torch

from exercises_utils.challenges.palindromes.checks_common import (
    DEEP,
    FAMILY,
    MISREAD,
    broken_tokens,
    few_tokens,
    intact_tokens,
    misread_head,
    near_the_threshold,
    pick,
    put,
    run,
    verdict,
)
from exercises_utils.checking import Draw, arg, exercise, on_models

TWO_RUNS: dict[str, Any] = dict(intact=intact_tokens, broken=broken_tokens)
FEW_RUNS: dict[str, Any] = dict(intact=few_tokens, broken=broken_tokens)
EXCHANGED = dict(intact=arg("broken"), broken=arg("intact"))

# ── 4 · is that the message ─────────────────────────────────────────────────────────────────────────────────


@exercise("One row of attention, swapped", core=True, axes="sequence")
def swap_pattern(
    model, head, intact, broken, position, *, what="pattern", source="broken", base="intact", row="position",
    keys="all", every_head=False, read=verdict,
):  # fmt: skip
    """By a forward pass without hooks, in which the pattern is changed before it meets the values."""
    layer, index = head
    runs, last = {"intact": intact, "broken": broken}, intact.shape[1] - 1
    places = {"all": None, "position": [position], "mirror": [last - position], "END": [last]}
    places["before"] = [position - 1]
    new = run(model, runs[source])[what, layer]
    edit = put(what, new, None if every_head else [index], places[row], places[keys])
    return read(run(model, runs[base], {(what, layer): edit}))


swap_pattern.given(
    on_models(FAMILY, head=Draw.head, position=pick(14, 20, 10), **TWO_RUNS),
    on_models(DEEP, seed=50, head=pick((0, 0), (0, 3)), position=pick(17, 9), **FEW_RUNS),
)
swap_pattern.slips(
    {
        "Nothing was swapped that differs: these are the logit differences of the intact sequences. Does the "
        "forward pass stand inside the `with` block, and does the pattern come from `broken`?": dict(
            source="intact"
        ),
        "These are the logit differences of the broken sequences; run `intact` inside the block.": dict(
            base="broken"
        ),
        "The two runs are exchanged: the intact run's attention was put into the broken one.": EXCHANGED,
        "All rows of the head's pattern were swapped; swap only the row of query `position` "
        "(`positions=[position]`).": dict(row="all"),
        "All heads of the layer were swapped; swap only `head` (`heads=[index]`).": dict(every_head=True),
        "The column was swapped: who attends *to* the position. Swap the row, where the position itself "
        "attends.": dict(row="all", keys="position"),
        "The head's output `z` was swapped, which takes the broken run's values along; swap the pattern only.": dict(
            what="z"
        ),
        "The values `v` were swapped, not the pattern.": dict(what="v"),
        "The queries were swapped, which then meet the intact run's keys; swap the pattern.": dict(what="q"),
        "The row of END was swapped; swap the row of `position`.": dict(row="END"),
        "The row of the mirror was swapped; swap the row of `position` itself.": dict(row="mirror"),
        "The row of `position - 1` was swapped; positions count from 0, and START has position 0.": dict(
            row="before"
        ),
        "Only the attention to the mirror was swapped; swap the whole row of `position`.": dict(
            keys="mirror"
        ),
        **MISREAD,
        **misread_head(swap_pattern),
    }
)

many_tokens = partial(intact_tokens, size=30)


@exercise("Is that row needed?", core=True)
def necessity(
    model, head, control, intact, broken, position, *, row="position", every_head=False, what="pattern",
    among="all", counts="rejected", minus=None, swaps="right",
):  # fmt: skip
    """The same forward pass, with the roles of the runs exchanged."""
    swap = dict(row=row, every_head=every_head, what=what)
    found = {"broken": verdict(run(model, broken))}
    for name, one in (("restored", head), ("control", control)):
        runs = (intact, broken) if swaps == "exchanged" else (broken, intact)
        found[name] = swap_pattern.truth(model, one, *runs, position, **swap)
    kept = found["broken"] < 0 if among == "noticed" else torch.ones(len(broken), dtype=torch.bool)
    how = {
        "rejected": lambda d: (d < 0).float().mean(),
        "accepted": lambda d: (d > 0).float().mean(),
        "logits": lambda d: d.mean(),
        "number": lambda d: (d < 0).float().sum(),
    }[counts]
    shares = {name: float(how(differences[kept])) for name, differences in found.items()}
    if among == "those rejected before":
        rejected = found["broken"] < 0
        shares = {n: float(how(d if n == "broken" else d[rejected])) for n, d in found.items()}
    if minus:
        return {name: shares["broken"] - s if name != "broken" else s for name, s in shares.items()}
    return shares


necessity.given(
    on_models(
        FAMILY, batch=30, lesson_batch=30, head=pick((0, 1), (1, 2), (0, 0)), control=pick((0, 0), (0, 1), (0, 2)),
        position=pick(14, 20, 10), intact=intact_tokens, broken=near_the_threshold,
    ),
    on_models(
        DEEP, seed=50, head=pick((0, 1), (0, 3)), control=pick((0, 0), (1, 0)), position=pick(17, 9),
        intact=many_tokens, broken=near_the_threshold,
    ),
)  # fmt: skip
necessity.slips(
    {
        "These are shares of accepted sequences; `rejected` is a logit difference below 0.": dict(
            counts="accepted"
        ),
        "These are mean logit differences; count the sequences whose difference is below 0.": dict(
            counts="logits"
        ),
        "These are numbers of sequences; divide by how many there are.": dict(counts="number"),
        "The two runs are exchanged: run `broken`, and restore a row of the run on `intact`.": EXCHANGED,
        "The swaps put the broken row into the intact run; run `broken`, and take the row from `intact`.": dict(
            swaps="exchanged"
        ),
        "The swaps' shares are of the sequences rejected before; take them of all of `broken`.": dict(
            among="those rejected before"
        ),
        'Both heads give the share of `head`: for "control" restore the row of `control`.': dict(
            control=arg("head")
        ),
        "`head` and `control` are exchanged.": dict(head=arg("control"), control=arg("head")),
        "All rows are restored; restore the row of query `position` only.": dict(row="all"),
        "The row of the mirror is restored; restore the row of `position` itself.": dict(row="mirror"),
        "All heads of the layer are restored at once; restore one head.": dict(every_head=True),
        "The head's output `z` is restored, which takes the intact run's values along; restore the pattern only.": dict(
            what="z"
        ),
        "These are shares of the sequences that the model noticed; count all of `broken`.": dict(
            among="noticed"
        ),
        "These are differences from the untouched run; return the three shares themselves.": dict(minus=True),
    }
)

# ── 5 · what does it say ────────────────────────────────────────────────────────────────────────────────────


@exercise("A message of your choice", core=True, axes="sequence")
def send_message(
    model, head, tokens, place, source, *, says="v", at="source", into="z", every_head=False, add=False,
    everywhere=False, causal=False, voice=0, read=verdict,
):  # fmt: skip
    """Through the pattern: the row of `place` is all on `source`, also where that comes later."""
    layer, index = head
    seen, last = run(model, tokens), tokens.shape[1] - 1
    at = {"source": source, "mirror": last - source, "before": source - 1}[at]
    new = seen[says, layer][:, at : at + 1].roll(-voice, 2).expand_as(seen["z", layer])
    if add:
        new = seen["z", layer] + new
    if causal and at > place:
        new = seen["z", layer]
    edit = put(into, new, None if every_head else [index], None if everywhere else [place])
    return read(run(model, tokens, {(into, layer): edit}))


send_message.given(
    on_models(FAMILY, head=Draw.head, tokens=intact_tokens, place=pick(14, 20, 10), source=pick(17, 4, 3)),
    on_models(
        DEEP, seed=50, head=pick((0, 0), (0, 3)), tokens=few_tokens, place=pick(19, 9), source=pick(3, 13),
    ),
)  # fmt: skip
send_message.slips(
    {
        "`place` and `source` are exchanged: the head writes at `place` what it reads at `source`.": dict(
            place=arg("source"), source=arg("place")
        ),
        "All heads of the layer send; only `head` does.": dict(every_head=True),
        "The message is added to what the head writes there; put it in its place.": dict(add=True),
        "The head sends at every position; it sends at `place` only.": dict(everywhere=True),
        "This is the message of the mirror of `source`.": dict(at="mirror"),
        "This is the message of position `source - 1`: positions count from 0, and START has position 0.": dict(
            at="before"
        ),
        "Nothing is sent where `source` comes after `place`. The value is put there, whatever the mask would allow.": dict(
            causal=True
        ),
        "This is what the head *wrote* at `source` (`z`); attending wholly to `source` it would write the value `v` of "
        "that position.": dict(says="z"),
        "These are the keys of `source`; what a head writes are values, `v`.": dict(says="k"),
        "This is the value of another head; take it from `head`.": dict(voice=1),
        "The value at `place` is replaced, for every query that attends to it; put the message into `z`, what the head "
        "writes at `place`.": dict(into="v"),
        **MISREAD,
        **misread_head(send_message),
    }
)


@exercise("Through queries, keys or values?", core=True, axes="sequence")
def swap_inputs(
    model, head, inputs, intact, broken, position, readers, *, path="row", takes="all", q_at="END", kv_at="position",
    base="intact", heads="readers", layer_of="readers",
):  # fmt: skip
    """By a forward pass without hooks, twice: with the row changed, and with what it made of the readers' inputs."""
    layer, index = head
    last, runs = intact.shape[1] - 1, {"intact": intact, "broken": broken}
    from_broken = run(model, broken)
    changed = {
        "row": ("pattern", [index], [position]),
        "rows": ("pattern", [index], None),
        "row of every head": ("pattern", None, [position]),
        "output": ("z", [index], [position]),
    }
    if path in changed:
        what, whose, rows = changed[path]
        edit = put(what, from_broken[what, layer], whose, rows)
        swapped = run(model, intact, {(what, layer): edit})
    else:
        swapped = run(model, runs[path])
    places = {"END": [last], "position": [position], "all": None, "mirror": [last - position]}
    who = {"readers": readers, "all": None, "first": readers[:1], "last": readers[-1:], "own": [index]}[heads]
    to = {"readers": layer + 1, "head": layer, "last": model.cfg.n_layers - 1}[layer_of]
    recorded = layer + 1 if layer_of == "head" else to
    taken = {"all": inputs, "first": inputs[:1], "last": inputs[-1:], "late": inputs, "exchanged": inputs}[
        takes
    ]
    edits = {}
    for name in taken:
        source = (
            inputs[-1]
            if takes == "late"
            else {"k": "v", "v": "k"}.get(name, name)
            if takes == "exchanged"
            else name
        )
        where = q_at if (inputs[-1] if takes == "late" else name) == "q" else kv_at
        edits[name, to] = put(name, swapped[source, recorded], who, places[where])
    return verdict(run(model, runs[base], edits))


def _one_by_one(*arguments: Any) -> Any:
    """The effects of the inputs, each in a run of its own, added."""
    model, head, inputs, intact, *_ = arguments
    before = verdict(run(model, intact))
    one = [swap_inputs.truth(model, head, (name,), intact, *arguments[4:]) for name in inputs]
    return before + sum(each - before for each in one)


swap_inputs.given(
    on_models(
        DEEP, head=pick((0, 1), (0, 3)), inputs=pick(("k", "v"), ("q", "k", "v")),
        position=pick(14, 20), readers=pick([0, 1], [1, 3]), **TWO_RUNS,
    ),
    on_models(
        DEEP, seed=50, head=pick((0, 0), (1, 2)), inputs=pick(("v",), ("v", "k")), position=pick(17, 9),
        readers=pick([1], [0, 2]), **FEW_RUNS,
    ),
    on_models(
        DEEP, seed=60, head=pick((0, 1), (0, 2)), inputs=("k", "q"), readers=pick([0], [2]), position=pick(21, 24),
        **FEW_RUNS,
    ),
)  # fmt: skip
swap_inputs.slips(
    {
        "Nothing was swapped that differs: these are the logit differences of the intact sequences. The row changes the "
        "inputs of the layer after `head`'s.": dict(path="intact"),
        "The inputs are those of the run on `broken`, in which the token itself has changed, too. Take them from a run "
        "on `intact` in which only `head`'s row is swapped.": dict(path="broken"),
        "All rows of `head` were swapped in the run that gives the inputs; swap the row of `position`.": dict(
            path="rows"
        ),
        "The rows of all heads were swapped in the run that gives the inputs; swap that of `head`.": dict(
            path="row of every head"
        ),
        "The head's output `z` was swapped in the run that gives the inputs, which takes the broken run's values along; "
        "swap the pattern.": dict(path="output"),
        "Queries were taken at `position`; END asks, so take them at END.": dict(q_at="position"),
        "Keys and values were taken at END; take them at `position`.": dict(kv_at="END"),
        "Keys and values were taken at the mirror of `position`; take them at `position`.": dict(
            kv_at="mirror"
        ),
        "The inputs were put into the run on `broken`; put them into the run on `intact`.": dict(
            base="broken"
        ),
        "All heads of the layer read; swap the inputs of `readers` only.": dict(heads="all"),
        "Only the first of the `readers` reads; swap the inputs of all of them.": dict(heads="first"),
        "Only the last of the `readers` reads; swap the inputs of all of them.": dict(heads="last"),
        "`head`'s own number was taken for the readers'; swap the inputs of the heads in `readers`.": dict(
            heads="own"
        ),
        "The inputs were put into `head`'s own layer; its readers are in the layer after it.": dict(
            layer_of="head"
        ),
        "These are the inputs of the last layer; take those of the layer after `head`'s.": dict(
            layer_of="last"
        ),
        "Only the first of the `inputs` was swapped; swap them all, in the same run.": dict(takes="first"),
        "Only the last of the `inputs` was swapped; swap them all, in the same run.": dict(takes="last"),
        "Keys and values are exchanged.": dict(takes="exchanged"),
        "Every hook puts in the last of the `inputs`: a function made in a loop sees the loop variable as the loop left "
        "it. Bind it when the hook is made: `def put(value, hook, name=name)`.": dict(takes="late"),
        "Each of the `inputs` was swapped in a run of its own, and the effects added; swap them all in the same run.": (
            _one_by_one
        ),
        "The two runs are exchanged: the row of the intact run was put into the broken one.": EXCHANGED,
    }
)

# ── 8 · mend it ─────────────────────────────────────────────────────────────────────────────────────────────


@exercise("Mend the blind place", core=False, axes="sequence")
def mend(
    model, head, tokens, place, attend_to=None, speak_as=None, *, row="replaced", lends="in the row's sum", to="place",
    only="both", zero_is_none=False, every_head=False,
):  # fmt: skip
    """From the difference that the two changes make to the row's sum."""
    layer, index = head
    if zero_is_none:
        attend_to, speak_as = attend_to or None, speak_as or None
    if only != "both" and None not in (attend_to, speak_as):
        attend_to, speak_as = (attend_to, None) if only == "attention" else (None, speak_as)
    seen = run(model, tokens)
    pattern, v = seen["pattern", layer][:, :, place].clone(), seen["v", layer]
    if attend_to is not None:
        pattern = pattern if row == "added" else 0 * pattern
        pattern[..., attend_to] = 1
    new = torch.einsum("shk,skhd->shd", pattern, v)
    if speak_as is not None:
        at = {"place": place, "attended": place if attend_to is None else attend_to}[to]
        new = new + pattern[..., at, None] * (v[:, speak_as] - v[:, at])
        if lends == "swapped":
            new = new + pattern[..., speak_as, None] * (v[:, place] - v[:, speak_as])
        if lends == "whole output":
            new = v[:, speak_as]
    chosen = None if every_head else [index]
    edits = {("z", layer): put("z", new[:, None].expand_as(v), chosen, [place])}
    if lends == "to every query" and speak_as is not None:
        edits["v", layer] = put("v", v[:, speak_as : speak_as + 1].expand_as(v), chosen, [place])
    return verdict(run(model, tokens, edits))


mend.given(
    on_models(
        FAMILY, head=Draw.head, tokens=intact_tokens, place=pick(20, 19, 10),
        attend_to=pick(1, 19, 10), speak_as=pick(14, 4, 3),
    ),
    on_models(
        DEEP, seed=50, head=pick((0, 0), (0, 3)), tokens=few_tokens, place=pick(13, 9), attend_to=pick(None, 0),
        speak_as=pick(16, None),
    ),
    on_models(
        DEEP, seed=60, head=pick((0, 1), (0, 2)), tokens=few_tokens, place=pick(17, 12), attend_to=None,
        speak_as=pick(None, 0),
    ),
    on_models(
        DEEP, seed=70, head=pick((0, 0), (1, 1)), tokens=few_tokens, place=15, attend_to=pick(18, 3),
        speak_as=pick(0, 8),
    ),
)  # fmt: skip
mend.slips(
    {
        "`attend_to` and `speak_as` are exchanged.": dict(
            attend_to=arg("speak_as"), speak_as=arg("attend_to")
        ),
        "The row is not emptied first: it attends to `attend_to` and to all that it attended to before.": dict(
            row="added"
        ),
        "All that the head writes at `place` became the value of `speak_as`; only the value of `place` in the row's sum "
        "is replaced, whatever else is attended to.": dict(lends="whole output"),
        "The value of `place` was replaced for every query; only the query at `place` should hear another.": dict(
            lends="to every query"
        ),
        "The two values were exchanged; that of `speak_as` stays what it is.": dict(lends="swapped"),
        "The value of the position attended to was replaced; replace that of `place`.": dict(to="attended"),
        "Where both are given, only `attend_to` is used.": dict(only="attention"),
        "Where both are given, only `speak_as` is used.": dict(only="message"),
        "Position 0 is taken for None: ask `is not None`.": dict(zero_is_none=True),
        "All heads of the layer are mended; change only `head`.": dict(every_head=True),
        **misread_head(mend),
    }
)
