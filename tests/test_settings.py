"""Settings: validation, files, and the precedence of preset, file and flag."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cliper.errors import SettingsError
from cliper.settings import (
    ATTENTIONS,
    PROPAGATIONS,
    RECIPES,
    REFINE_MODES,
    RESIZE_MODES,
    SYNONYM_MERGES,
    TEMPLATES,
    Preset,
    Settings,
    load_preset,
    load_settings,
)

FIELDS = [field.name for field in dataclasses.fields(Settings)]
NAN, INFINITE = math.nan, math.inf

WRONG: dict[str, list[Any]] = {
    "recipe": ["best", "", 1, None, ["conference"]],
    "size": [0, -1, 4097, 336.0, "336", True, None, 10**400],
    "logit_scale": [-0.1, 10_001, "100", True, None, NAN, INFINITE, 10**400, [1]],
    "map_threshold": [-0.01, 1.01, "0.1", None, NAN, False],
    "select_layer": [-1001, 1000, 0.0, "last", None, True],
    "extra_sizes": [448, [0], [4097], ["448"], [448.0], "448", None],
    "flip": [0, 1, "yes", None],
    "window": [-1, 4097, 224.0, None, False],
    "window_context": [0, 1, "yes", None],
    "attention": ["flash", "Fused", None, 3],
    "proxy_model": ["", "  ", None, 3, ["dino-b8"]],
    "fuse_features": [0, 1, "yes", None],
    "class_top": [-1, 10_001, 3.0, None, True],
    "class_min_score": [-0.01, 1.01, "0.1", None, NAN],
    "score_threshold": [-0.01, 1.01, "0.7", None, NAN],
    "background_threshold": [-0.01, 1.01, "auto", None, NAN],
    "sensitivity": [-0.01, 1.01, "high", None, NAN],
    "background_similarity": [-0.01, 1.01, "near", None, NAN],
    "background_count": [-1, 1001, 64.0, "64", None, True],
    "normalize": [0, 1, "no", None],
    "templates": [
        "scene16",
        "",
        None,
        [],
        [""],
        [1],
        3,
        ["no placeholder"],
        ["{} and {}"],
        ["{0}"],
        ["{} {x}"],
        ["{}}"],
    ],
    "merge_synonyms": ["max", "", None, True],
    "refine_threshold": [-0.01, 1.01, "0.1", NAN, True],
    "refine_mode": ["sum", None],
    "refine_map_index": [-1, 10_001, 0.5, None, True],
    "refine_layers": ["up_blocks", [], [""], [1], 5],
    "refine_size": [63, 2049, 512.0, "512", True, [], [512, 512, 512], [512, 1], [True, 512]],
    "refine_max_patches": [0, 1_000_001, 4096.0, "4096", True],
    "refine_resize": ["lanczos", 3],
    "refine_step": [-1, 50, 45.0, None, True],
    "refine_noise": [0, 1, "yes", None],
    "refine_balance": [-1, 101, 1.0, None, True],
    "refine_vae": ["", "  ", None, 3, ["taesd"]],
    "refine_propagation": ["both", None, True],
    "refine_neighbors": [0, 100_001, 4.0, None, True],
    "refine_alpha": [-0.01, 1.0, "0.9", None, NAN],
    "edge_weight": [-0.01, 1_000_001, "1", None, NAN, True],
    "edge_sigma": [0, 10.1, "1", None, NAN, True],
}

# Valid values, at the limits where there are any.
RIGHT: dict[str, list[Any]] = {
    "recipe": list(RECIPES),
    "size": [1, 4096],
    "logit_scale": [0, 10_000, 50],
    "map_threshold": [0, 1],
    "select_layer": [-1000, 999],
    "extra_sizes": [[], (), [1, 4096], (448,)],
    "flip": [True, False],
    "window": [0, 4096],
    "window_context": [True, False],
    "attention": list(ATTENTIONS),
    "proxy_model": ["dino-s16", "some/folder"],
    "fuse_features": [True, False],
    "class_top": [0, 10_000],
    "class_min_score": [0, 1],
    "score_threshold": [0, 1],
    "background_threshold": [0, 1],
    "sensitivity": [0, 1],
    "background_similarity": [0, 1],
    "background_count": [0, 1000],
    "normalize": [True, False],
    "templates": [*TEMPLATES, ["{}"], ("a {}.", "the {}")],
    "merge_synonyms": list(SYNONYM_MERGES),
    "refine_threshold": [None, 0, 1],
    "refine_mode": list(REFINE_MODES),
    "refine_map_index": [0, 10_000],
    "refine_layers": [None, ["a"], ("a", "b")],
    "refine_size": [None, 64, 2048, [64, 2048], (512, 512), [512]],
    "refine_max_patches": [None, 1, 1_000_000],
    "refine_resize": [None, *RESIZE_MODES],
    "refine_step": [0, 49],
    "refine_noise": [True, False],
    "refine_balance": [0, 100],
    "refine_vae": ["full", "taesd", "some/folder"],
    "refine_propagation": list(PROPAGATIONS),
    "refine_neighbors": [1, 100_000],
    "refine_alpha": [0, 0.999],
    "edge_weight": [0, 1_000_000],
    "edge_sigma": [0.001, 10],
}


def test_tables_name_every_field() -> None:
    assert list(WRONG) == list(RIGHT) == FIELDS


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
    ids=lambda x: str(x)[:20],
)
def test_wrong_values_are_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: expected ") as caught:
        Settings(**{name: value})
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match=f"^somewhere: {name}: expected "):
        Settings().replace(origin="somewhere", **{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values])
def test_values_at_the_limits_are_accepted(name: str, value: Any) -> None:
    got = getattr(Settings(**{name: value}), name)
    assert got == (tuple(value) * (2 if value == [512] else 1) if isinstance(value, list) else value)


def test_template_names_equal_those_of_the_file() -> None:
    text = (resources.files("cliper") / "assets" / "templates.yaml").read_text(encoding="utf-8")
    assert list(TEMPLATES) == sorted(yaml.safe_load(text))


def test_settings_are_frozen_and_can_be_compared() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.size = 3  # type: ignore[misc]
    assert settings == Settings()
    assert hash(settings.replace(size=3)) == hash(Settings(size=3))
    assert settings.replace(size=3) != settings
    assert settings.size == 336


@pytest.mark.parametrize(
    ("given_name", "words"),
    [
        ("treshold", "did you mean 'map_threshold'"),
        ("refine_layer", "did you mean 'refine_layers'"),
        ("Size", "did you mean 'size'"),
        ("zzz", "known are: recipe, size"),
        ("origin", "unknown setting 'origin'"),
        ("self", "unknown setting 'self'"),
        (1, "unknown setting 1"),
    ],
)
def test_unknown_key_suggests_the_closest(given_name: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping({given_name: 1}, origin="here")
    assert str(caught.value).startswith("here: unknown setting ")
    assert words in str(caught.value)


# PyYAML writes 0E0 without quotes, because it is a text in YAML 1.1; load_settings reads it as a number.
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}"), min_size=1, max_size=12
).filter(lambda text: not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", text))
shares = st.floats(0, 1)
sides = st.integers(64, 2048)
settings_strategy = st.builds(
    Settings,
    recipe=st.sampled_from(RECIPES),
    size=st.integers(1, 4096),
    logit_scale=st.floats(0, 1e4),
    map_threshold=shares,
    select_layer=st.integers(-1000, 999),
    extra_sizes=st.lists(st.integers(1, 4096), max_size=3),
    flip=st.booleans(),
    window=st.integers(0, 4096),
    window_context=st.booleans(),
    attention=st.sampled_from(ATTENTIONS),
    proxy_model=st.sampled_from(["dino-b8", "dinov2-s14", "models/my dino"]),
    fuse_features=st.booleans(),
    class_top=st.integers(0, 10_000),
    class_min_score=shares,
    score_threshold=shares,
    background_threshold=shares,
    sensitivity=shares,
    background_similarity=shares,
    background_count=st.integers(0, 1000),
    normalize=st.booleans(),
    templates=st.one_of(
        st.sampled_from(TEMPLATES),
        st.lists(st.tuples(texts, texts).map("{}".join), min_size=1, max_size=4),
    ),
    merge_synonyms=st.sampled_from(SYNONYM_MERGES),
    refine_threshold=st.none() | shares,
    refine_mode=st.sampled_from(REFINE_MODES),
    refine_map_index=st.integers(0, 10_000),
    refine_layers=st.none() | st.lists(texts, min_size=1, max_size=3),
    refine_size=st.none() | sides | st.tuples(sides, sides),
    refine_max_patches=st.none() | st.integers(1, 1_000_000),
    refine_resize=st.none() | st.sampled_from(RESIZE_MODES),
    refine_step=st.integers(0, 49),
    refine_noise=st.booleans(),
    refine_balance=st.integers(0, 100),
    refine_vae=st.sampled_from(["full", "taesd", "models/my vae"]),
    refine_propagation=st.sampled_from(PROPAGATIONS),
    refine_neighbors=st.integers(1, 100_000),
    refine_alpha=st.floats(0, 0.999),
    edge_weight=st.floats(0, 1e6),
    edge_sigma=st.floats(1e-3, 10),
)


@given(settings_strategy)
def test_settings_are_read_back_from_dictionaries_and_files(settings: Settings) -> None:
    values = settings.to_dict()
    assert list(values) == FIELDS
    assert Settings.from_mapping(values) == settings
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("a.json", json.dumps(values)), ("a.yaml", yaml.safe_dump(values, allow_unicode=True))):
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            assert load_settings(path) == settings
            assert load_settings(str(path), base=Settings(size=1, score_threshold=0.25)) == settings


@given(settings_strategy, settings_strategy, st.sets(st.sampled_from(FIELDS)), st.sets(st.sampled_from(FIELDS)))
def test_flag_overrides_file_and_file_overrides_preset(
    base: Settings, other: Settings, in_file: set[str], in_flags: set[str]
) -> None:
    flags = {name: getattr(Settings(size=7, score_threshold=0.125, refine_step=3), name) for name in in_flags}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(json.dumps({name: other.to_dict()[name] for name in in_file}))
        got = load_settings(path, base=base).replace(**flags)
    for name in FIELDS:
        expected = flags[name] if name in in_flags else getattr(other if name in in_file else base, name)
        assert getattr(got, name) == expected


def test_preset_ignores_base_and_settings_are_returned_unchanged() -> None:
    base = Settings(logit_scale=3, refine_size=100)
    assert load_settings("vit-l-14/voc21", base=base) == load_preset("vit-l-14/voc21").settings
    settings = Settings(size=5)
    assert load_settings(settings, base=base) is settings


def test_file_with_byte_order_mark_tabs_and_exponents(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf# with a byte order mark\r\nnormalize: no\r\n"
        b"background_threshold: 1e-4\r\nrefine_size: [448, 512]\r\n"
    )
    settings = load_settings(path)
    assert settings == Settings(normalize=False, background_threshold=0.0001, refine_size=(448, 512))
    other = tmp_path / "own.json"
    other.write_text('{\n\t"background_threshold": 1E-05,\n\t"refine_layers": ["a"]\n}')
    assert load_settings(other) == Settings(background_threshold=1e-5, refine_layers=("a",))


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "0.1e-3", "1.e-4", ".1e-3", "+1e-4", "1.0e-4"])
def test_yaml_exponents_are_numbers(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"map_threshold: {number}")
    assert load_settings(path).map_threshold == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yaml", "size: 336\n  scale: [", "expected settings as YAML or JSON"),
        ("a.yaml", "size: 336 #" + "a" * 100_000, "it has more than 100,000 bytes"),
        ("a.yaml", "- 1\n- 2", "expected 'name: value' lines, got list"),
        ("a.yaml", "", "expected 'name: value' lines, got NoneType"),
        ("a.yaml", "just words", "got str"),
        ("a.yaml", b"\xff\xfe\x00", "could not read them"),
        ("a.yaml", b"\x00", "could not read them"),
        ("a.yaml", "size: !!python/object:os.system x", "could not read them"),
        ("a.yaml", "scale: " + "9" * 5000, "could not read them"),
        ("a.yaml", "[" * 5000, "could not read them"),
        ("a.json", "{", "could not read them"),
        ("a.yaml", "{[1]: 2}", "could not read them"),
        ("a.yaml", "treshold: 0.1", "did you mean 'map_threshold'"),
        ("a.yaml", "clases: [dog]", "did you mean 'classes'"),
        ("a.yaml", "size: 2020-01-01", "size: expected a whole number"),
        ("a.yaml", "origin: 1", "unknown setting 'origin'"),
        ("a.yaml", "self: 1", "unknown setting 'self'"),
        ("settings", "size: big", "size: expected a whole number"),
    ],
)
def test_bad_file_is_named_in_a_message_of_one_line(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no.yaml", "'no.yaml' does not exist"),
        ("no.YML", "does not exist"),
        ("~nobody-of-that-name/a.json", "does not exist"),
        ("x" * 5000 + ".yaml", "does not exist"),
        ("x" * 5000, "no preset is called"),
        ("nul\0.yaml", "does not exist"),
        ("vit-b-16/voc12", "vit-b-16/voc21"),
        ("", "no preset is called ''"),
        (".", "no preset is called '.'"),
    ],
)
def test_unknown_preset_or_missing_file(source: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(source)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_preset_suggests_the_closest() -> None:
    with pytest.raises(SettingsError, match=r"no preset is called 'vit-b-16/voc'; near it: vit-b-16/voc"):
        load_preset("vit-b-16/voc")
    assert Preset("a", "b", "c", "d", Settings()).published == {}


def test_name_of_a_benchmark_suggests_its_presets() -> None:
    with pytest.raises(SettingsError, match=r"near it: .*vit-b-16/voc21, vit-h-14/voc21, vit-l-14/voc21"):
        load_preset("voc21")


# --- sensitivity --------------------------------------------------------------------------------------------


@given(st.floats(0.001, 1), st.floats(0, 1), st.floats(0, 1))
def test_higher_sensitivity_never_raises_a_threshold(threshold: float, first: float, second: float) -> None:
    settings = Settings(score_threshold=threshold, background_threshold=threshold)
    low, high = sorted((first, second))
    moved_low, moved_high = (settings.replace(sensitivity=s).thresholds() for s in (low, high))
    assert moved_low[0] == moved_low[1]
    assert moved_low[0] >= moved_high[0] - 1e-12  # rounding of the formula in float64
    assert 0.001 <= moved_high[0] <= 1


@given(st.floats(0, 1))
def test_half_sensitivity_leaves_thresholds_bit_for_bit(threshold: float) -> None:
    settings = Settings(score_threshold=threshold, background_threshold=threshold)
    assert settings.thresholds() == (threshold, threshold)


def test_background_that_competes_is_not_moved() -> None:
    assert Settings(background_threshold=0, sensitivity=0.9).thresholds()[1] == 0
