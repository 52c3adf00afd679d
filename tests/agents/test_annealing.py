"""Annealing of PPO's step size and entropy bonus: linear to a tenth, by the optimizer's own count of its steps."""

import pytest
import torch

import metarl
from metarl.agents.ppo import PPO, Columns, PPOConfig
from metarl.agents.rl2 import RL2, RL2Config
from metarl.agents.varibad import VariBAD, VariBADConfig
from metarl.nn.heads import CategoricalHead

BANDIT = metarl.make("Bandit-v0", arms=3, pulls=4)


def learner(**options):
    """PPO of a policy with three logits that do not depend on anything, and of a value that is 0."""
    config = PPOConfig(**({"epochs": 1, "minibatches": 1, "max_gradient_norm": 1e9} | options))
    module = torch.nn.ParameterList([torch.tensor([0.5, -0.2, 0.1])])

    def network(inputs, starts):
        return (module[0].expand(*inputs.shape[:2], 3),), inputs.new_zeros(inputs.shape[:2])

    zeros = torch.zeros(2, 5)
    log_probs = module[0].detach().log_softmax(-1)[0].expand(2, 5)
    columns = Columns(
        torch.zeros(2, 5, 1), None, zeros.long(), log_probs, zeros, zeros, torch.ones(2, 5, dtype=torch.bool)
    )
    ppo = PPO(config, module, ranks=metarl.Ranks())
    return module[0], lambda: ppo.update(network, CategoricalHead(3), columns, torch.Generator()), ppo


def negative_entropy_gradient(logits):
    """d(−H)/dlogits = p (log p + H), by hand."""
    p = logits.softmax(-1)
    entropy = -(p * p.log()).sum()
    return p * (p.log() + entropy)


def test_the_entropy_bonus_falls_to_a_tenth_and_stays_there():
    logits, update, _ = learner(entropy_bonus=0.3, lr=1e-3, anneal_iterations=4)
    for share in (1.0, 0.775, 0.55, 0.325, 0.1, 0.1):
        expected = 0.3 * share * negative_entropy_gradient(logits.detach())
        update()  # no advantages and no value error: the entropy alone has a gradient
        torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (3, 2)])
def test_the_step_size_falls_to_a_tenth_over_the_iterations(epochs, minibatches):
    _, update, ppo = learner(lr=0.02, anneal_iterations=3, epochs=epochs, minibatches=minibatches)
    found = []
    for _ in range(5):
        update()
        found.append(ppo.optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.02, 0.014, 0.008, 0.002, 0.002])


def test_nothing_changes_unless_it_is_asked_for():
    _, update, ppo = learner(lr=0.02)
    for _ in range(3):
        update()
    assert ppo.optimizer.param_groups[0]["lr"] == 0.02


@pytest.mark.parametrize(("cls", "config"), [(RL2, RL2Config), (VariBAD, VariBADConfig)])
def test_a_restored_agent_goes_on_with_the_step_size_that_it_had(cls, config):
    def agent():
        options = config(num_tasks=4, episodes_per_trial=1, epochs=2, minibatches=2, anneal_iterations=4, hidden=8)
        return cls(options, metarl.EnvSpec.of(BANDIT), seed=0)

    def improve(agent, iterations):
        env = BANDIT.make_env(num_tasks=4)
        for i in iterations:
            env.set_tasks(BANDIT.sample(4, seed=i))
            agent.improve(env, seed=i)

    whole, first, second = agent(), agent(), agent()
    improve(whole, range(3))
    improve(first, range(2))
    second.load_state(*first.state())
    for name, buffer in first.buffers().items():
        second.buffers()[name].append(buffer.rows(0, buffer.count))
    improve(second, [2])
    assert second.ppo.optimizer.param_groups[0]["lr"] == pytest.approx(0.55 * second.config.lr)
    for name, value in whole.state()[0].items():
        assert torch.equal(value, second.state()[0][name]), name


def test_an_interval_of_no_iterations_is_refused():
    with pytest.raises(metarl.UsageError, match="anneal_iterations"):
        PPOConfig(anneal_iterations=0)
