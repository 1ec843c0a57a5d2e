"""What is damaged is asked for by name, packed alone, and put in its place."""

from __future__ import annotations

import json
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bundle_builder import assembled, blob_name, file_record, manifest_of, model_record, parts_of
from loopback_hub import LoopbackHub
from loopback_web import LoopbackWeb
from test_second_trip import Trips, first_bundle, members
from trees import tree

import bundler
from bundler.manifest import Manifest
from bundler.seek_table import read_seek_table

RANDOM = random.Random(1)
ONE, TWO, THREE, LATER = (RANDOM.randbytes(1_500_000) for _ in range(4))
MODEL = {"config.json": b"{}", "a.safetensors": ONE, "b.safetensors": TWO, "c.safetensors": THREE}
FLIPPED = 2_000_000
"""A byte of the bundle's file that is within the second of the large files."""


@pytest.fixture
def trips(hub: LoopbackHub, tmp_path: Path, no_network: None) -> Trips:
    """A bundle of one model has been carried over, and upstream has moved on."""
    for name in ("online", "target"):
        (tmp_path / name).mkdir()
    repo = hub.add("acme/big", MODEL)
    trips = Trips(hub, repo, tmp_path / "online", tmp_path / "target")
    first_bundle(trips, trips.target / "b.tar.zst", sign=key(trips))
    repo.commit_files({"b.safetensors": LATER})
    return trips


def key(trips: Trips) -> bundler.PrivateKey:
    bundler.write_key_pair(trips.online / "key.pem")
    return bundler.PrivateKey.read(trips.online / "key.pem")


def flip(path: Path, position: int = FLIPPED) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def cut(path: Path) -> None:
    os.truncate(path, FLIPPED)


def split(trips: Trips, size: str) -> Path:
    """The bundle once more, in volumes, in a folder."""
    (trips.target / "stick").mkdir()
    locked = ["--locked", trips.target / "b.tar.zst", "--split-size", size, "--store", "first"]
    trips.pack("stick/b.tar.zst", *locked)
    return trips.target / "stick"


def commands(stick: Path) -> list[str]:
    """Those in the note on a stick."""
    lines = (stick / "README.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.startswith("    ")]


def cut_after_the_manifest(path: Path) -> None:
    """Keep as little of a bundle as still says what it holds."""
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with suppress(bundler.BundlerError):
            bundler.inspect(path)
            return


class TestABundle:
    @pytest.mark.parametrize(
        ("damage", "lost"),
        [
            (flip, [TWO]),
            (cut, [TWO, THREE]),
            (cut_after_the_manifest, [b"{}", ONE, TWO, THREE]),
        ],
    )
    def test_is_completed_by_a_small_one(self, trips: Trips, damage: Any, lost: Any) -> None:
        damage(trips.target / "b.tar.zst")
        done = trips.do("verify", "b.tar.zst", "--request", "need.json", code=4)
        assert "bundler pack --for need.json packs what is needed" in done.err
        done = trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        # What brings all of it needs no other.
        damaged = "DAMAGED --repair " * (len(lost) < len(MODEL))
        assert f"    bundler unpack {damaged}repair.tar.zst && source offline.env" in done.out
        names = [*map(blob_name, lost)]
        assert members(trips.target / "repair.tar.zst") == ["manifest.json", *names]
        repair = ["--repair", "repair.tar.zst"]
        assert "all 4 blobs (4.5 MB) are right" in trips.do("verify", "b.tar.zst", *repair).out
        signed = ["--verify-key", trips.online / "key.pub.pem"]
        plan = trips.do("unpack", "b.tar.zst", *repair, *signed, "--dry-run")
        assert "4 files (4.5 MB) to write" in plan.out
        for _ in range(2):
            trips.do("unpack", "b.tar.zst", *repair, *signed)
        assert trips.found("main") == [MODEL]
        (receipt,) = (trips.target / "root/huggingface/.bundler/receipts").iterdir()
        assert receipt.stem == bundler.inspect(trips.target / "b.tar.zst").digest.hex
        assert bundler.verify_installed(bundler.find_roots(root=trips.target / "root")).faults == ()

    def test_is_completed_if_the_byte_is_right_after_its_manifest(self, trips: Trips) -> None:
        """A decoder that reads on to the end of the manifest's frame stumbles over the next."""
        damaged = trips.target / "b.tar.zst"
        right = damaged.read_bytes()
        with open(damaged, "rb") as file:
            _, begin, end, *_ = read_seek_table(file, 100).file_offsets
        for position in range(begin, end):
            flip(damaged, position)
            named = [fault.files for fault in bundler.verify(damaged).faults]
            assert named == [("config.json of acme/big",)], position
            damaged.write_bytes(right)
        flip(damaged, begin)
        trips.do("verify", "b.tar.zst", "--request", "need.json", code=4)
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        trips.do("unpack", "b.tar.zst", "--repair", "repair.tar.zst")
        assert trips.found("main") == [MODEL]

    def test_in_volumes_is_completed_by_volumes(self, trips: Trips) -> None:
        """Also if one of them has not even its size."""
        stick, repair = split(trips, "1MB"), trips.target / "repair"
        repair.mkdir()
        flip(stick / "b.tar.zst.001", 500_000)
        cut_short = stick / "b.tar.zst.003"
        os.truncate(cut_short, 1000)
        done = trips.do("verify", "stick", "--request", "need.json", code=4)
        assert "volume 4 of 5 (b.tar.zst.003) ends after 1,000 of" in done.err
        request = trips.target / "need.json"
        done = trips.pack("repair/b.tar.zst", "--for", request, "--split-size", "1MB")
        assert "next: carry b.tar.zst.* (sha256sum -c compares) over" in done.out
        for named in ("repair", "repair/b.tar.zst"):
            trips.do("verify", "stick", "--repair", named)
            trips.do("unpack", "stick", "--repair", named, "--dry-run")
        trips.do("unpack", "stick", "--repair", "repair")
        assert trips.found("main") == [MODEL]

    @pytest.mark.parametrize("listed", [True, False], ids=["listed", "without a list"])
    def test_that_lacks_a_volume_is_completed(self, trips: Trips, listed: bool) -> None:
        stick = split(trips, "1MB")
        (stick / "b.tar.zst.002").unlink()
        if not listed:
            (stick / "b.tar.zst.volumes").unlink()
        missing = f"volume 3{' of 5' * listed} (b.tar.zst.002) is missing"
        done = trips.do("verify", "stick", "--request", "need.json", code=3)
        assert missing in done.err
        assert "bundler pack --for need.json packs what is needed" in done.err
        result = json.loads(trips.do("verify", "stick", "--json", code=3).out)
        assert result["missing_volumes"] == ["b.tar.zst.002"]
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        # With a list it is known where the next volume goes on: so what begins there is read.
        lost = [TWO] if listed else [TWO, THREE]
        names = [*map(blob_name, lost)]
        assert members(trips.target / "repair.tar.zst") == ["manifest.json", *names]
        assert missing in trips.do("unpack", "stick", code=3).err
        trips.do("verify", "stick", "--repair", "repair.tar.zst")
        trips.do("unpack", "stick", "--repair", "repair.tar.zst", "--dry-run")
        trips.do("unpack", "stick", "--repair", "repair.tar.zst")
        assert trips.found("main") == [MODEL]

    def test_is_told_on_the_stick_how_to_be_completed(self, trips: Trips) -> None:
        stick = trips.target / "usb"
        stick.mkdir()
        flip(trips.target / "b.tar.zst")
        trips.do("verify", "b.tar.zst", "--request", "need.json", code=4)
        mends = "bundler unpack DAMAGED --repair FOLDER/big.tar.zst"
        done = trips.pack("usb/", "--for", trips.target / "need.json")
        assert "    bundler unpack DAMAGED --repair big.tar.zst && source offline.env" in done.out
        assert commands(stick) == [mends, "source offline.env"]
        trips.pack("usb/", "acme/big", "--store", "other")
        plain = ["bundler unpack FOLDER/big-2.tar.zst", "source offline.env"]
        assert commands(stick) == [*plain, mends, "source offline.env"]
        command = mends.replace("DAMAGED", "b.tar.zst").replace("FOLDER", "usb")
        trips.do(*command.split()[1:])
        assert trips.found("main") == [MODEL]

    @pytest.mark.parametrize("numbers", [[4], [1, 3], [2, 4], [1, 2, 3, 4]])
    def test_that_lacks_any_but_the_first_volume_is_completed(
        self, trips: Trips, numbers: list[int]
    ) -> None:
        stick = split(trips, "1MB")
        for number in numbers:
            (stick / f"b.tar.zst.{number:03}").unlink()
        done = trips.do("verify", "stick", "--request", "need.json", code=3)
        for number in numbers:
            assert f"volume {number + 1} of 5 (b.tar.zst.{number:03}) is missing" in done.err
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        trips.do("unpack", "stick", "--repair", "repair.tar.zst")
        assert trips.found("main") == [MODEL]

    def test_of_which_only_the_table_is_lost_needs_no_content(self, trips: Trips) -> None:
        size = (trips.target / "b.tar.zst").stat().st_size
        stick = split(trips, str(size - 20))
        (stick / "b.tar.zst.001").unlink()
        trips.do("verify", "stick", "--request", "need.json", code=3)
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        assert members(trips.target / "repair.tar.zst") == ["manifest.json"]
        trips.do("unpack", "stick", "--repair", "repair.tar.zst")
        assert trips.found("main") == [MODEL]

    def test_without_its_manifest_can_ask_for_nothing(self, trips: Trips) -> None:
        stick = split(trips, "1MB")
        for name in ("b.tar.zst.000", "b.tar.zst.003"):
            (stick / name).unlink()
        for _ in range(2):
            done = trips.do("verify", "stick", "--request", "need.json", code=3)
            assert "the manifest, of which the first has some, is not whole" in done.err
            assert not (trips.target / "need.json").exists()
            (stick / "b.tar.zst.volumes").unlink(missing_ok=True)

    def test_may_be_completed_by_any_that_has_it(self, trips: Trips) -> None:
        """By the same bundle with a fault elsewhere, say: together they are whole."""
        whole = trips.target / "b.tar.zst"
        shutil.copy(whole, trips.target / "other.tar.zst")
        flip(whole)
        flip(trips.target / "other.tar.zst", FLIPPED + len(TWO))
        done = trips.do("verify", "other.tar.zst", code=4)
        assert "c.safetensors" in done.err
        repair = ["--repair", "other.tar.zst"]
        trips.do("verify", "b.tar.zst", *repair)
        trips.do("unpack", "b.tar.zst", *repair)
        assert trips.found("main") == [MODEL]

    def test_what_no_repair_brings_is_named_and_nothing_is_written(self, trips: Trips) -> None:
        whole = trips.target / "b.tar.zst"
        flip(whole)
        shutil.copy(whole, trips.target / "other.tar.zst")
        before = tree(trips.target)
        for command in ("verify", "unpack"):
            done = trips.do(command, "b.tar.zst", "--repair", "other.tar.zst", code=4)
            assert "b.safetensors of acme/big" in done.err
        assert "--repair does not bring it: nothing was installed" in done.err
        assert tree(trips.target) == before

    def test_without_a_fault_nothing_is_asked_for(self, trips: Trips) -> None:
        trips.do("verify", "b.tar.zst", "--request", "need.json")
        assert not (trips.target / "need.json").exists()

    def test_what_is_asked_for_is_the_manifest_of_the_repair(self, trips: Trips) -> None:
        flip(trips.target / "b.tar.zst")
        trips.do("verify", "b.tar.zst", "--request", "need.json", code=4)
        content = (trips.target / "need.json").read_bytes()
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        repair = bundler.inspect(trips.target / "repair.tar.zst")
        assert repair.manifest_bytes == content
        assert Manifest.from_bytes(content).builds_on == (
            bundler.inspect(trips.target / "b.tar.zst").digest,
        )

    def test_one_that_builds_on_another_asks_for_its_own_alone(self, trips: Trips) -> None:
        trips.do("unpack", "b.tar.zst")
        trips.pack("next.tar.zst", "acme/big@main", "--since", trips.target / "b.tar.zst")
        flip(trips.target / "next.tar.zst", 1_000_000)
        done = trips.do("verify", "next.tar.zst", "--request", "need.json", code=4)
        assert "b.safetensors" in done.err
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        assert members(trips.target / "repair.tar.zst") == ["manifest.json", blob_name(LATER)]
        trips.do("unpack", "next.tar.zst", "--repair", "repair.tar.zst")
        assert trips.found("main") == [{**MODEL, "b.safetensors": LATER}]

    def test_what_is_gone_upstream_is_told(self, trips: Trips) -> None:
        flip(trips.target / "b.tar.zst")
        trips.do("verify", "b.tar.zst", "--request", "need.json", code=4)
        trips.hub._repos.clear()
        done = trips.pack("repair.tar.zst", "--for", trips.target / "need.json", code=3)
        assert "no longer to be had: acme/big" in done.err

    @pytest.mark.parametrize(
        "options",
        [["--locked", "need.json"], ["--since", "need.json"], ["acme/big"], ["--check-load"]],
    )
    def test_what_contradicts_it_is_refused(self, trips: Trips, options: list[str]) -> None:
        flip(trips.target / "b.tar.zst")
        request = trips.online / "need.json"
        trips.do("verify", "b.tar.zst", "--request", request, code=4)
        done = trips.pack("repair.tar.zst", "--for", request, *options, code=2)
        assert "--for" in done.err

    def test_what_is_no_request_is_refused(self, trips: Trips) -> None:
        trips.do("inventory", "-o", "have.json")
        done = trips.pack("repair.tar.zst", "--for", trips.target / "have.json", code=2)
        assert "name what bundler verify --request wrote" in done.err

    def test_a_folder_is_no_request(self, trips: Trips) -> None:
        flip(trips.target / "b.tar.zst")
        (trips.target / "stick").mkdir()
        done = trips.do("verify", "b.tar.zst", "--request", "stick", code=6)
        assert done.err == "bundler: stick is a folder: name a file with --request\n"
        done = trips.do("inventory", "-o", "stick", code=6)
        assert done.err == "bundler: stick is a folder: name a file with --output\n"

    def test_git_names_of_a_repair_do_not_count(self, tmp_path: Path) -> None:
        """A blob under another's git name is as bad when a second bundle brings it."""
        record = file_record("x", b"x", etag="0" * 40)
        bundle, repair = tmp_path / "b.tar.zst", tmp_path / "r.tar.zst"
        bundle.write_bytes(assembled(parts_of(manifest_of(model_record(files=[record])), [b"x"])))
        repair.write_bytes(assembled(parts_of(manifest_of(model_record({"x": b"x"})), [b"x"])))
        before = tree(tmp_path)
        with pytest.raises(bundler.DamagedError, match="is not what its etag"):
            bundler.unpack(
                bundle, roots=bundler.find_roots(root=tmp_path / "t"), env=None, repairs=[repair]
            )
        assert tree(tmp_path) == before
        assert bundler.verify(bundle, repairs=[repair]).faults


class TestWhatIsInstalled:
    def test_is_repaired_in_its_place(self, trips: Trips) -> None:
        trips.do("unpack", "b.tar.zst")
        blobs = trips.target / "root/huggingface/hub/models--acme--big/blobs"
        by_content = {path.read_bytes(): path for path in blobs.iterdir()}
        flip(by_content[TWO], 5)
        by_content[b"{}"].unlink()
        (trips.target / "b.tar.zst").unlink()
        done = trips.do("verify", "--request", "need.json", code=4)
        assert "bundler pack --for need.json packs what is needed (1.5 MB)" in done.err
        assert "repair" not in (trips.target / "need.json").read_text()
        done = trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        assert "    bundler unpack repair.tar.zst && source offline.env" in done.out.splitlines()
        names = [blob_name(content) for content in (b"{}", TWO)]
        assert members(trips.target / "repair.tar.zst") == ["manifest.json", *names]
        trips.do("unpack", "repair.tar.zst", "--hash")
        assert bundler.verify_installed(bundler.find_roots(root=trips.target / "root")).faults == ()
        assert trips.found("main") == [MODEL]

    def test_of_every_kind(self, hub: LoopbackHub, web: LoopbackWeb, tmp_path: Path) -> None:
        """Each layout has a way back from where files stand to what they are in their model."""
        for name in ("online", "target"):
            (tmp_path / name).mkdir()
        repo = hub.add("acme/big", {"config.json": b"{}", "a.safetensors": b"weights"})
        trips = Trips(hub, repo, tmp_path / "online", tmp_path / "target")
        web.add_repository("acme/code", {"hubconf.py": b"x = 1\n", "lib/y.py": b"y = 2\n"})
        web.add("https://host.example/x.pth", b"checkpoint")
        folder = trips.online / "mine"
        folder.mkdir()
        (folder / "config.json").write_bytes(b'{"mine": 1}')
        (folder / "m.safetensors").write_bytes(b"mine")
        specs = ["acme/big", "torchhub:acme/code", "https://host.example/x.pth", "file:mine"]
        options = [option for mirror in web.mirrors for option in ("--mirror", mirror)]
        trips.pack("b.tar.zst", *specs, *options)
        plain = trips.target / "root/checkpoints"
        trips.do("unpack", "b.tar.zst", "--checkpoints", "root/checkpoints")
        lost = [
            trips.target / "root/torch/hub/checkpoints/x.pth",
            plain / "mine/m.safetensors",
            *trips.target.glob("root/torch/hub/acme_code_*/hubconf.py"),
        ]
        assert len({path.resolve() for path in lost}) >= 3
        for path in lost[:2]:
            path.unlink()
        # To a folder of code that is there no file is added: all of it goes.
        for code in trips.target.glob("root/torch/hub/acme_code_*"):
            code.unlink() if code.is_symlink() else shutil.rmtree(code)
        trips.do("verify", "--request", "need.json", code=4)
        needed = Manifest.from_bytes((trips.target / "need.json").read_bytes())
        had = bundler.inspect(trips.target / "b.tar.zst").manifest
        entries = {(s.name, s.layout, e.path, e.blob) for s in had.snapshots for e in s.files}
        asked = {(s.name, s.layout, e.path, e.blob) for s in needed.snapshots for e in s.files}
        assert asked < entries
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json", *options)
        trips.do("unpack", "repair.tar.zst", "--checkpoints", "root/checkpoints")
        assert bundler.verify_installed(bundler.find_roots(root=trips.target / "root")).faults == ()

    def test_nothing_wrong_asks_for_nothing(self, trips: Trips) -> None:
        trips.do("unpack", "b.tar.zst")
        trips.do("verify", "--request", "need.json")
        assert not (trips.target / "need.json").exists()

    def test_a_lost_link_needs_no_content(self, trips: Trips) -> None:
        trips.do("unpack", "b.tar.zst")
        (link,) = trips.target.glob("root/huggingface/hub/*/snapshots/*/config.json")
        link.unlink()
        trips.do("verify", "--request", "need.json", code=4)
        trips.pack("repair.tar.zst", "--for", trips.target / "need.json")
        assert members(trips.target / "repair.tar.zst") == ["manifest.json"]
        trips.do("unpack", "repair.tar.zst")
        assert trips.found("main") == [MODEL]

    def test_a_repair_is_for_a_bundle(self, trips: Trips) -> None:
        done = trips.do("verify", "--repair", "b.tar.zst", code=2)
        assert "name the bundle" in done.err


def test_a_request_names_no_place(trips: Trips) -> None:
    trips.do("unpack", "b.tar.zst")
    shutil.rmtree(trips.target / "root/huggingface/hub/models--acme--big/blobs")
    trips.do("verify", "--request", "need.json", code=4)
    text = (trips.target / "need.json").read_text()
    assert str(trips.target) not in text
    assert set(json.loads(text)) == {"format_version", "snapshots"}
