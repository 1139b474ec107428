"""CLIP's tokenizer, from the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.checkpoints.validate import read_json
from cliper.errors import CheckpointError, reraise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["load_tokenizer"]

_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def load_tokenizer(folder: Path) -> Tokenizer:
    """The byte-level BPE of ``tokenizer.json``, or of ``vocab.json`` and ``merges.txt``.

    As in ``transformers``, how a text is normalised and split into words is CLIP's, whatever ``tokenizer.json`` says.
    Texts are neither truncated nor padded.

    Raises:
        CheckpointError: the files are missing or cannot be read.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if not whole.is_file() and not vocabulary.is_file():
        raise CheckpointError(
            f"{folder}: expected a tokenizer (tokenizer.json, or vocab.json and merges.txt) beside the "
            f"weights, found none; copy it from the source of the checkpoint"
        )
    # The parsers of tokenizers raise plain exceptions.
    with reraise(Exception, CheckpointError, f"{folder}: could not read the tokenizer"):
        start, end, unknown, padding = _special_tokens(folder)
        if whole.is_file():
            tokenizer = Tokenizer.from_file(str(whole))
        else:
            model = BPE.from_file(str(vocabulary), str(merges), unk_token=unknown, end_of_word_suffix="</w>")
            tokenizer = Tokenizer(model)
        tokenizer.add_special_tokens([start, end, unknown, padding])
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        ids: dict[str, Any] = {token: tokenizer.token_to_id(token) for token in (start, end)}
        tokenizer.post_processor = processors.RobertaProcessing(
            (end, ids[end]), (start, ids[start]), trim_offsets=False, add_prefix_space=False
        )
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _special_tokens(folder: Path) -> list[str]:
    """The tokens of a text's start and end, of an unknown byte and of padding, as the checkpoint calls them."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= read_json(folder / name, "it names the special tokens")

    names = []
    for kind in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = config.get(kind)
        text = token.get("content") if isinstance(token, dict) else token
        names.append(str(text or ("<|startoftext|>" if kind == "bos_token" else "<|endoftext|>")))
    return names
