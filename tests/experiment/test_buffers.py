"""Replay buffers in the run folder: what was appended comes back to the bit, and the disk stays bounded."""

import shutil
from pathlib import Path

import hill_climber
import pytest
import torch
from run_helpers import assert_same_run, config

import metarl
from metarl.experiment.buffers import BufferFiles, restore_buffers
from metarl.experiment.checkpoints import load_checkpoint
from metarl.replay import ReplayBuffer


def rows(first: int, count: int) -> dict[str, torch.Tensor]:
    """Rows that say their numbers, in several dtypes and shapes."""
    numbers = torch.arange(first, first + count)
    return {
        "number": numbers,
        "matrix": numbers[:, None, None] + torch.tensor([[0.25, 0.5, float("nan")]]),
        "even": numbers % 2 == 0,
        "half": (numbers / 8).to(torch.bfloat16),
        "picture": (numbers[:, None] % 256).to(torch.uint8).expand(-1, 4),
    }


def assert_holds(buffer: ReplayBuffer, first: int, last: int) -> None:
    assert (buffer.count, len(buffer)) == (last, last - first)
    found, expected = buffer.rows(0, last), rows(first, last - first)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


# 10 rows make room for 3, 4, 1, … at a time: within a file, over its end, and more than the buffer holds.
@pytest.mark.parametrize("lengths", [[3], [4] * 3, [10, 1], [1, 25, 2], [7, 0, 7, 7, 7, 7], [30], [10] * 4])
def test_what_was_appended_is_restored(tmp_path: Path, lengths: list[int]):
    buffer = ReplayBuffer(10)
    files = BufferFiles(tmp_path, {"seen": buffer}, {})
    for length in lengths:
        if length:
            buffer.append(rows(buffer.count, length))
        files.append()
        record = files.record()
        again = ReplayBuffer(10)
        restore_buffers(tmp_path, {"seen": again}, record)
        assert_holds(again, max(0, buffer.count - 10), buffer.count)
    total = sum(lengths)
    going_on = BufferFiles(tmp_path, {"seen": again}, record)
    again.append(rows(total, 6))
    going_on.append()
    third = ReplayBuffer(10)
    restore_buffers(tmp_path, {"seen": third}, going_on.record())
    assert_holds(third, max(0, total + 6 - 10), total + 6)


def test_rows_beyond_the_record_are_cut_off(tmp_path: Path):
    buffer = ReplayBuffer(10)
    files = BufferFiles(tmp_path, {"seen": buffer}, {})
    buffer.append(rows(0, 13))
    files.append()
    record = files.record()
    for _ in range(4):
        buffer.append(rows(99, 6))
        files.append()
    again = ReplayBuffer(10)
    restore_buffers(tmp_path, {"seen": again}, record)
    going_on = BufferFiles(tmp_path, {"seen": again}, record)
    again.append(rows(13, 2))
    going_on.append()
    third = ReplayBuffer(10)
    restore_buffers(tmp_path, {"seen": third}, going_on.record())
    assert_holds(third, 5, 15)


def test_a_buffer_without_rows_and_one_that_gets_them_late(tmp_path: Path):
    buffer = ReplayBuffer(10)
    files = BufferFiles(tmp_path, {"seen": buffer}, {})
    files.append()
    again = ReplayBuffer(10)
    restore_buffers(tmp_path, {"seen": again}, files.record())
    assert (again.count, len(again)) == (0, 0)


def test_names_that_cannot_be_files_are_refused(tmp_path: Path):
    with pytest.raises(metarl.UsageError, match=r"buffer '\.\./up' cannot name a file"):
        BufferFiles(tmp_path, {"../up": ReplayBuffer(3)}, {})
    with pytest.raises(metarl.UsageError, match="cannot name a file") as caught:
        BufferFiles(tmp_path, {"9" * 5000: ReplayBuffer(3)}, {})
    assert len(str(caught.value)) < 200
    longest = "ß" * 60
    buffer = ReplayBuffer(3)
    files = BufferFiles(tmp_path, {longest: buffer}, {})
    buffer.append({longest: torch.arange(2)})
    files.append()
    restore_buffers(tmp_path, {longest: ReplayBuffer(3)}, files.record())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a ring of 20 rows, 8 of which come in each of 12 iterations; checkpoints of 4, 8 and 12."""
    return metarl.train(config(tmp_path_factory.mktemp("runs") / "whole", agent="hoarder"), progress=False)


def test_the_disk_holds_what_the_kept_checkpoints_need(whole: Path):
    """The oldest one has seen 32 rows, of which 12 to 31 are there: files of rows 0 to 19, 20 to 39, …"""
    found = sorted(path.name for path in (whole / "buffers" / "noise").glob("noise-*.bin"))
    assert found == [f"noise-{segment:06d}.bin" for segment in range(5)]
    longer = metarl.train(config(whole.parent / "longer", agent="hoarder", iterations=60), progress=False)
    found = sorted(path.name for path in (longer / "buffers" / "noise").glob("noise-*.bin"))
    assert found == [f"noise-{segment:06d}.bin" for segment in range(19, 24)], "from row 396 on, of 480"
    restored = ReplayBuffer(20)
    restore_buffers(longer, {"noise": restored}, load_checkpoint(longer).buffers)
    assert restored.count == 480


@pytest.mark.parametrize("kept", [4, 8])
def test_any_kept_checkpoint_goes_on_exactly(whole: Path, tmp_path: Path, kept: int):
    """As after a kill: the files have the rows of later iterations."""
    run = shutil.copytree(whole, tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        if int(path.stem[-6:]) > kept:
            path.unlink()
    metarl.resume(run, progress=False)
    assert_same_run(whole, run)


def test_an_iteration_that_fails_leaves_no_rows(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The buffer in memory has the rows of the sixth iteration already; the checkpoint has those of five."""
    climb, calls = hill_climber.HillClimber.improve, []

    def broken(self, env, *, seed):
        calls.append(seed)
        if len(calls) == 6:
            raise RuntimeError("the gripper fell off")
        return climb(self, env, seed=seed)

    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="fell off"):
        patch.setattr(hill_climber.HillClimber, "improve", broken)
        metarl.train(config(run, agent="hoarder"), progress=False)
    checkpoint = load_checkpoint(run)
    assert (checkpoint.iteration, checkpoint.buffers["noise"]["count"]) == (5, 40)
    metarl.resume(run, progress=False)
    assert_same_run(whole, run)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a missing file": ("noise-000003.bin", Path.unlink, "cannot be read"),
    "a short file": ("noise-000002.bin", truncate, "is damaged: it has"),
    "a flipped bit": ("late-000002.bin", flip_bit, "wrong checksum"),
    "no header": ("header.json", Path.unlink, "header.json is missing or damaged"),
    "a broken header": ("header.json", lambda path: path.write_text('{"capacity": 20, "fields": 3}'), "or damaged"),
    "another dtype": (
        "header.json",
        lambda path: path.write_text(path.read_text().replace("float32", "Tensor")),
        "header.json is missing or damaged",
    ),
    "another capacity": (
        "header.json",
        lambda path: path.write_text(path.read_text().replace('"capacity": 20', '"capacity": 30')),
        "a buffer of 30 rows, the agent's has 20",
    ),
}


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line_and_changes_nothing(whole: Path, tmp_path: Path, name: str, damage, message: str):
    run = shutil.copytree(whole, tmp_path / "run")
    for path in run.glob("checkpoints/iteration-000012.*"):
        path.unlink()
    damage(run / "buffers" / "noise" / name)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(metarl.UsageError, match=message) as caught:
        metarl.resume(run, progress=False)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
