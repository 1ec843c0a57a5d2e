"""File systems that are no ext4: FAT, as on sticks, and those to which `A` and `a` are one name.

They are mounted for real, where the system has them and lets us.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bundle_builder import COMMIT_HASH, assembled, manifest_of, model_record, parts_of
from command import run
from memory_source import make_bundle
from trees import stamps, tree, unpack_below

import bundler
from bundler.errors import TargetError
from bundler.file_limit import file_limit

KINDS = Path(__file__).parent / "data/format-1-kinds.tar.zst"
SNAPSHOT = Path("huggingface/hub/models--org--model/snapshots") / COMMIT_HASH


def bundle_of(path: Path, files: dict[str, bytes], **fields: object) -> Path:
    """A bundle of one model with these files."""
    manifest = manifest_of(model_record(files, **fields))
    path.write_bytes(assembled(parts_of(manifest, tuple(files.values()))))
    return path


class TestFat:
    def test_a_stick_takes_a_bundle_and_gives_it_back(self, fat: Path, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "a.safetensors").write_bytes(os.urandom(3_000_000))
        done = run("pack", "file:model", "-o", f"{fat}/", home=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert f"safe to remove: {fat}" in done.out
        assert sorted(path.name for path in fat.iterdir()) == ["README.txt", "model.tar.zst"]
        split = ("--split-size", "1MB")
        assert run("pack", "file:model", "-o", fat / "v.zst", *split, home=tmp_path).code == 0
        for name in ("model.tar.zst", "v.zst"):
            assert run("verify", fat / name, home=tmp_path).code == 0
            assert run("unpack", fat / name, "--root", name, home=tmp_path).code == 0

    def test_volumes_stay_clear_of_its_limit(self, fat: Path, tmp_path: Path) -> None:
        """fsck.fat 4.2 counts the bytes of a file's clusters in 32 bits: it cuts one that has a
        part of the last before 4 GiB down to nothing."""
        assert file_limit(fat) == (4 << 30) - (1 << 20)
        assert file_limit(tmp_path) > 1 << 40
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "a.bin").write_bytes(b"a")
        request = ("pack", "file:model", "-o", fat / "b.zst", "--split-size")
        done = run(*request, "4GiB", home=tmp_path)
        assert (done.code, "as it is FAT: say --split-size 4GB" in done.err) == (2, True)
        done = run(*request, "auto", home=tmp_path)
        assert (done.code, (fat / "b.zst").is_file()) == (0, True)
        os.truncate(tmp_path / "model" / "a.bin", 8 << 30)
        done = run(*request[:-1], home=tmp_path)
        assert (done.code, "or pack with --split-size auto" in done.err) == (6, True)

    def test_caches_are_rebuilt_on_it(self, fat: Path) -> None:
        for _ in range(2):
            unpacked = unpack_below(fat, KINDS, checkpoints=True)
            done = stamps(fat)
        assert (unpacked.written_size, stamps(fat)) == (0, done)
        assert not [path for path in fat.rglob("*") if path.is_symlink()]
        assert not [*fat.rglob(".locks")]
        assert bundler.verify_installed(unpacked.roots).faults == ()
        (config,) = fat.glob("huggingface/hub/models--acme--code/snapshots/*/config.json")
        assert config.read_bytes().strip() == b"{}"

    def test_it_is_known_before_that_each_file_takes_a_cluster(
        self, fat: Path, tmp_path: Path
    ) -> None:
        files = {f"{number}.json": b"%d" % number for number in range(3_000)}
        make_bundle(tmp_path / "b.tar.zst", {"acme/many": files})
        before = tree(fat)
        done = run("unpack", tmp_path / "b.tar.zst", "--root", fat / "r", home=tmp_path)
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert "98.3 MB are needed: free some space" in done.err
        assert tree(fat) == before


class TestBlindToCase:
    def test_two_names_that_are_one_are_refused(self, case_blind: Path, tmp_path: Path) -> None:
        files = {"config.json": b"{}", "readme.md": b"lower", "README.md": b"upper"}
        for layout in ("hf-cache", "flat"):
            bundle = bundle_of(tmp_path / layout, files, layout=layout)
            with pytest.raises(TargetError, match=r"takes 'README.md' and another name"):
                unpack_below(case_blind / layout, bundle)
            assert not (case_blind / layout).exists()

    @pytest.mark.parametrize("links", [True, False], ids=["a link", "a file"])
    def test_what_is_there_by_another_name_is_not_replaced(
        self, case_blind: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", str(int(not links)))
        lower = bundle_of(tmp_path / "lower", {"config.json": b"{}", "readme.md": b"lower"})
        upper = bundle_of(tmp_path / "upper", {"config.json": b"{}", "README.md": b"upper"})
        unpack_below(case_blind, lower)
        before = tree(case_blind)
        with pytest.raises(TargetError, match=r"takes .*README\.md and what is there for one"):
            unpack_below(case_blind, upper)
        assert tree(case_blind) == before
        there = case_blind / SNAPSHOT / "readme.md"
        assert (there.read_bytes(), there.is_symlink()) == (b"lower", links)

    def test_a_file_of_another_name_stays(self, case_blind: Path, tmp_path: Path) -> None:
        theirs = case_blind / "checkpoints/model/readme.md"
        theirs.parent.mkdir(parents=True)
        theirs.write_bytes(b"mine")
        files = {"config.json": b"{}", "README.md": b"upper"}
        bundle = bundle_of(tmp_path / "b", files, layout="flat", name="model")
        before = tree(case_blind)
        with pytest.raises(TargetError, match="is there, with other content"):
            unpack_below(case_blind, bundle)
        assert tree(case_blind) == before
