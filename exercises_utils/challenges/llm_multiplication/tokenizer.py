"""The bundled model's tokenizer: the ids of `task.BUNDLED`, on products as the real model's tokenizer cuts them."""

from typing import Any

from exercises_utils.challenges.llm_multiplication.task import BUNDLED, END, EQUALS, SPACE, TIMES, UNKNOWN

UNKNOWN_TEXT = "<unk>"


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast`: one token a digit, " x", " ", " =" and "<|endoftext|>"; "<unk>" for all else.

    >>> build_tokenizer().encode("12 x 34 = 408")
    [2, 3, 11, 12, 4, 5, 13, 12, 5, 1, 9]
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {
        END: BUNDLED.end,
        **{str(digit): token for digit, token in enumerate(BUNDLED.digits)},
        TIMES: BUNDLED.times,
        SPACE: BUNDLED.space,
        EQUALS: BUNDLED.equals,
        UNKNOWN_TEXT: UNKNOWN,
    }
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d| x| =| "), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN_TEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
