"""Shares, sums and random numbers of ranks, which are threads here, against those of one process."""

import copy

import pytest
import torch
import torch.distributed as dist
from thread_ranks import on_ranks

import metarl
import metarl.devices
from metarl import parallel
from metarl.actions import ActionFormat
from metarl.nn.normalization import RunningNorm
from metarl.parallel import Ranks, draw_rows, exponential_like, join_ranks, normal_like
from metarl.rollout import standardize
from metarl.scripts.cli import main


def test_one_rank_returns_what_it_is_given():
    ranks, value = Ranks(), torch.arange(3.0)
    assert ranks.sum(value) is value
    assert ranks.mean(value) is value
    assert ranks.means([value])[0] is value
    assert ranks.gather(value, 0) is value
    assert torch.equal(ranks.own(torch.tensor([2, 0]), 1), torch.tensor([2, 0]))
    assert ranks.gather_values({"a": 1}) == [{"a": 1}]
    assert ranks.from_first(lambda: "path") == "path"
    assert ranks.any(True)
    assert type(ranks.generator("maml", 3)) is torch.Generator


def test_one_sum_does_for_the_means_of_several_tensors():
    tensors = [[torch.full((2, 2), float(rank)), torch.tensor(10.0 * rank)] for rank in range(3)]
    found = on_ranks(3, lambda ranks: ranks.means(tensors[ranks.rank]))
    for matrix, number in found:
        assert torch.equal(matrix, torch.ones(2, 2))
        assert number == 10


def test_gradients_are_averaged_and_parameters_without_one_stay_so():
    def work(ranks):
        one, other = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
        one.grad = torch.full((2,), float(ranks.rank))
        (more,) = ranks.average_gradients([other, one], torch.tensor(float(ranks.rank)))
        return one.grad, other.grad, more

    for gradient, nothing, more in on_ranks(2, work):
        assert torch.equal(gradient, torch.full((2,), 0.5))
        assert nothing is None
        assert more == 0.5


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 6, 4), (6, 1)])
@pytest.mark.parametrize("draw", [normal_like, exponential_like])
def test_ranks_draw_the_numbers_of_one_process(draw, shape):
    """As the heads draw: `[M, N, A]` or `[1, M N, A]`, task-major."""
    whole = [3 * n if i == (0 if shape[0] > 1 else 1) else n for i, n in enumerate(shape)]
    alone = Ranks().generator("test", 0)
    wanted = [draw(torch.empty(whole), alone) for _ in range(2)]
    generators = [Ranks(3, rank).generator("test", 0) for rank in range(3)]
    for numbers in wanted:
        parts = [draw(torch.empty(shape), generator).reshape(shape) for generator in generators]
        assert torch.equal(torch.cat(parts, 0 if shape[0] > 1 else 1), numbers)
    after = [torch.randperm(9, generator=generator) for generator in (alone, *generators)]
    assert all(torch.equal(order, after[0]) for order in after), "what is drawn directly is the same on every rank"


@pytest.mark.parametrize("id", ["PointNavigation-v0", "Bandit-v0"])
def test_ranks_draw_the_random_actions_of_one_process(id):
    actions = ActionFormat(metarl.make(id).action_space)
    wanted = actions.draw((6, 2), Ranks().generator("test", 0))
    parts = [actions.draw((2, 2), Ranks(3, rank).generator("test", 0)) for rank in range(3)]
    assert torch.equal(torch.cat(parts), wanted)


def test_a_copied_generator_still_draws_for_its_rank():
    generator = Ranks(2, 1).generator("test", 0)
    copied = copy.deepcopy(generator)
    assert torch.equal(normal_like(torch.empty(3), generator), normal_like(torch.empty(3), copied))


def test_draws_of_a_plain_generator_are_left_alone():
    numbers = draw_rows((2, 3), torch.Generator(), lambda shape: torch.full(shape, 7.0))
    assert torch.equal(numbers, torch.full((2, 3), 7.0))


def test_shares_are_even_or_refused():
    assert Ranks(3, 1).share("num_tasks", 6) == 2
    for count, choice in ((5, "choose 3 or 6"), (2, "choose 3,"), (40, "choose 39 or 42")):
        with pytest.raises(metarl.UsageError, match=rf"num_tasks {count} cannot be shared .* 3 ranks: {choice}"):
            Ranks(3, 1).share("num_tasks", count)


def test_parts_of_a_batch_cover_it_once():
    for count in (3, 7, 16):
        parts = [range(count)[Ranks(3, rank).part("belief_batch", count)] for rank in range(3)]
        assert [row for part in parts for row in part] == list(range(count))
        assert {len(part) for part in parts} <= {count // 3, count // 3 + 1}
    with pytest.raises(metarl.UsageError, match="belief_batch 2 does not go round 3 ranks"):
        Ranks(3, 0).part("belief_batch", 2)


def test_rows_of_all_ranks_are_found_again_in_their_own():
    """Rows are [T, R, width], of which a rank has [T, width]."""
    rows = torch.arange(4 * 3 * 5).reshape(4, 3, 5)
    order = torch.randperm(rows.numel(), generator=torch.Generator().manual_seed(0))
    for rank in range(3):
        own = rows[:, rank].flatten()
        chosen = own[Ranks(3, rank).own(order, 5)]
        assert torch.equal(chosen, torch.tensor([n for n in order.tolist() if n in set(own.tolist())]))


def test_advantages_are_standardised_over_all_ranks():
    generator = torch.Generator().manual_seed(0)
    values, mask = torch.randn(5, 6, generator=generator), torch.rand(5, 6, generator=generator) > 0.3
    parts = on_ranks(2, lambda r: standardize(*(t[:, 3 * r.rank : 3 * r.rank + 3] for t in (values, mask)), ranks=r))
    torch.testing.assert_close(torch.cat(parts, 1), standardize(values, mask))


def test_running_statistics_are_those_of_all_ranks():
    generator = torch.Generator().manual_seed(0)
    values, mask = 3 + torch.randn(5, 6, 2, generator=generator), torch.rand(5, 6, generator=generator) > 0.3
    mask[:, 3:] = False  # the second rank has nothing to add
    alone = RunningNorm(2)
    for shift in (0, 7):
        alone.update(values + shift, mask)

    def work(ranks):
        norm, own = RunningNorm(2), slice(3 * ranks.rank, 3 * ranks.rank + 3)
        for shift in (0, 7):
            norm.update(values[:, own] + shift, mask[:, own], ranks)
        return norm.state_dict()

    for state in on_ranks(2, work):
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value)


@pytest.fixture
def unjoined():
    """The ranks of this process are not known yet, whatever tests were before."""
    join_ranks.cache_clear()
    yield
    join_ranks.cache_clear()


@pytest.mark.usefixtures("unjoined")
@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"WORLD_SIZE": "2"}, "RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT not set"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two', not a number"),
    ],
)
def test_variables_that_torchrun_did_not_set_are_refused(variables, complaint, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(metarl.UsageError, match=complaint):
        join_ranks()


@pytest.mark.usefixtures("unjoined")
def test_a_torch_without_distributed_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(metarl.UsageError, match=r"this torch has no torch\.distributed"):
        join_ranks()


def test_ranks_of_a_machine_share_its_cpus(monkeypatch):
    alone = metarl.devices.num_cpus()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(alone))
    assert metarl.devices.num_cpus() == 1
    assert parallel.launched_here() == alone


def test_restarts_need_to_know_the_run(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert main(["train", "random", "--env", "PointNavigation-v0", "--iterations", "1"]) == 2
    assert "name its folder, --output DIR" in capsys.readouterr().err
