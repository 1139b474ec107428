import json

import pytest

from cliper.checkpoints import find_entry, recommended_settings, resolve, resolve_recipe
from cliper.checkpoints.resolve import ResolvedCheckpoint
from cliper.errors import CheckpointError, SettingsError
from cliper.settings import load_preset


def test_bundled_checkpoint_has_its_own_settings():
    given = json.loads((resolve("mini", "clip").folder / "settings.json").read_text())
    settings = recommended_settings(resolve("mini", "clip")).to_dict()
    assert {name: settings[name] for name in given} == given


@pytest.mark.parametrize("alias", ["ViT-B/16", "ViT-L/14", "ViT-H/14"])
def test_registry_names_the_preset_of_a_hub_checkpoint(tmp_path, alias):
    entry = find_entry(alias)
    (tmp_path / "settings.json").write_text('{"size": 64}')  # a hub repository's own is about anything
    found = ResolvedCheckpoint(alias, "clip", tmp_path, "hub", entry.sources[0].repo, "main", entry)
    assert recommended_settings(found) == load_preset(entry.recommended).settings


@pytest.mark.parametrize(
    ("vision", "preset"),
    [
        ({"patch_size": 14, "num_hidden_layers": 24}, "vit-l-14/voc21"),
        ({"patch_size": 14, "num_hidden_layers": 32}, "vit-l-14/voc21"),
        ({"patch_size": 14, "num_hidden_layers": 12}, "vit-b-16/voc21"),
        ({"patch_size": 16, "num_hidden_layers": 24}, "vit-b-16/voc21"),
        ({}, "vit-b-16/voc21"),
        (None, "vit-b-16/voc21"),
    ],
)
def test_unknown_checkpoint_gets_the_preset_of_its_architecture(tmp_path, vision, preset):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    assert recommended_settings(resolve(tmp_path, "clip")) == load_preset(preset).settings


@pytest.mark.parametrize(
    ("recipe", "layers", "width", "expected"),
    [
        ("preprint", 32, 1280, "preprint-h"),
        ("preprint", 24, 1024, "preprint"),
        ("preprint", 32, 1024, "preprint"),
        ("conference", 32, 1280, "conference"),
        ("preprint-h", 24, 1024, "preprint-h"),
    ],
)
@pytest.mark.parametrize("key", ["vision_config", "vision_config_dict"])
def test_preprint_recipe_of_vit_h14_is_its_variant(tmp_path, recipe, layers, width, expected, key):
    vision = {"num_hidden_layers": layers, "hidden_size": width, "patch_size": 14, "num_attention_heads": 16}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", key: vision}))
    assert resolve_recipe(recipe, resolve(tmp_path, "clip")) == expected


def test_local_folder_has_its_own_settings(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"logit_scale": 20, "size": 224}')
    settings = recommended_settings(resolve(tmp_path, "clip"))
    assert (settings.logit_scale, settings.size) == (20, 224)
    for text, words in (
        ('{"skale": 20}', "'skale'"),
        ("{", "could not read"),
        ("[]", "expected 'name: value'"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=words) as caught:
            recommended_settings(resolve(tmp_path, "clip"))
        assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        recommended_settings(resolve(tmp_path, "clip"))
