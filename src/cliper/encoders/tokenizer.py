"""The tokenizer, from the files of a checkpoint."""

from __future__ import annotations

import gzip
import re
import string
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.checkpoints.validate import is_open_clip, read_json
from cliper.errors import CheckpointError, reraise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["load_tokenizer", "pad_to_length"]

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def load_tokenizer(folder: Path, rules: str = "clip") -> Tokenizer:
    """The tokenizer of a checkpoint. Texts are neither truncated nor padded.

    Args:
        folder: of the checkpoint.
        rules: ``"file"``: those of ``tokenizer.json``; ``"lowercase"``: these, in lower case, as SigLIP and TIPSv2 were
            trained; ``"clip"``: byte-level BPE of ``tokenizer.json``, or of ``vocab.json`` and ``merges.txt``. As in
            ``transformers``, how a text is normalised and split into words is then CLIP's, whatever ``tokenizer.json``
            says. Weights of OpenCLIP or OpenAI without such files have CLIP's own vocabulary, which is bundled.

    Raises:
        CheckpointError: the files are missing or cannot be read.
    """
    return _load_clip_tokenizer(folder) if rules == "clip" else _load_file(folder, rules == "lowercase")


def pad_to_length(tokenizer: Tokenizer, folder: Path, length: int) -> None:
    """Let a tokenizer pad texts to a number of tokens, on the right.

    Raises:
        CheckpointError: its files do not say which token pads.
    """
    name = _special_tokens(folder)[3]
    token = tokenizer.token_to_id(name)
    if token is None:
        raise CheckpointError(f"{folder}: expected a pad_token in tokenizer_config.json, got {name!r}")
    tokenizer.enable_padding(length=length, pad_id=token, pad_token=name)


def _load_file(folder: Path, lowercase: bool) -> Tokenizer:
    """The tokenizer of ``tokenizer.json``. SigLIP's own, not that of SigLIP 2, leaves out punctuation."""
    from tokenizers import Regex, Tokenizer, normalizers

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: expected tokenizer.json beside the weights, found none; "
            "save it with transformers' AutoTokenizer"
        )
    with reraise(Exception, CheckpointError, f"{folder}: could not read the tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        steps: list[Any] = [normalizers.Lowercase()] if lowercase else []
        if _tokenizer_config(folder).get("tokenizer_class") == "SiglipTokenizer":
            steps += [normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), "")]
            steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        if tokenizer.normalizer is not None:
            steps.append(tokenizer.normalizer)
        if steps:
            tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _load_clip_tokenizer(folder: Path) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    bundled = is_open_clip(folder)
    if not whole.is_file() and not vocabulary.is_file() and not bundled:
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
            parts = BPE.read_file(str(vocabulary), str(merges)) if vocabulary.is_file() else _clip_vocabulary()
            tokenizer = Tokenizer(BPE(*parts, unk_token=unknown, end_of_word_suffix="</w>"))
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


def _clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids of the tokens and the merges of CLIP's own vocabulary."""
    packed = (resources.files("cliper.checkpoints") / "clip_vocabulary" / "merges.txt.gz").read_bytes()
    merges = [(first, second) for first, second in map(str.split, gzip.decompress(packed).decode().splitlines())]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    # A byte that is no printable character of Latin-1 is shown as one of those from 256 on.
    characters = [*map(chr, printable), *map(chr, range(256, 512 - len(printable)))]
    tokens = [*characters, *(f"{one}</w>" for one in characters), *map("".join, merges), *_SPECIAL]
    return {token: index for index, token in enumerate(tokens)}, merges


def _special_tokens(folder: Path) -> list[str]:
    """The tokens of a text's start and end, of an unknown byte and of padding, as the checkpoint calls them."""
    config = _tokenizer_config(folder)
    names = []
    for kind in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token = config.get(kind)
        text = token.get("content") if isinstance(token, dict) else token
        names.append(str(text or _SPECIAL[kind != "bos_token"]))
    return names


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= read_json(folder / name, "it names the special tokens")
    return config
