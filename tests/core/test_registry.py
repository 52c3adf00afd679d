"""Ids, near matches, and plugins of installed packages."""

import subprocess
import sys
import textwrap

import pytest

import metarl
from metarl import UsageError, registry


def test_built_in_ids_are_listed_in_order():
    ids = metarl.list_distributions()
    assert {"Bandit-v0", "PointNavigation-v0", "SparsePointNavigation-v0", "TabularMDP-v0"} <= set(ids)
    assert ids == sorted(ids)
    assert "random" in metarl.list_agents()


def test_every_listed_agent_is_there():
    for id in metarl.list_agents():
        assert issubclass(registry.agent_class(id), metarl.Agent)


@pytest.mark.parametrize("id", ["PointNavigation", "pointnavigation-v0", "PointNavigaton-v0"])
def test_an_unknown_distribution_names_near_matches(id):
    with pytest.raises(UsageError, match=rf"unknown environment '{id}'; did you mean .*PointNavigation-v0") as caught:
        metarl.make(id)
    assert "\n" not in str(caught.value)


def test_an_unknown_agent_names_near_matches():
    with pytest.raises(UsageError, match=r"unknown agent 'randon'; did you mean random\?"):
        registry.agent_class("randon")


def test_an_id_like_no_other_lists_what_there_is():
    with pytest.raises(UsageError, match="known: AntDir-v0"):
        metarl.make("????")


def test_options_reach_the_factory_and_wrong_ones_are_named():
    assert metarl.make("Bandit-v0", arms=3).action_space.n == 3
    with pytest.raises(UsageError, match=r"Bandit-v0: .*'legs'.*arms"):
        metarl.make("Bandit-v0", legs=3)
    with pytest.raises(UsageError, match="arms must be a whole number of at least 1, got 0"):
        metarl.make("Bandit-v0", arms=0)


def test_a_duplicate_id_is_refused():
    metarl.list_distributions()
    with pytest.raises(ValueError, match="'Bandit-v0' is registered already"):
        metarl.register_distribution("Bandit-v0", object)
    with pytest.raises(ValueError, match="'random' is registered already"):
        metarl.register_agent("random", "module:Class")


def install(folder, name, code):
    """What pip leaves behind: a module and its metadata."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[metarl.plugins]\n{name} = {name}:register\n")


def run_beside(folder, code):
    """Runs `code` in a new interpreter that has `folder`'s packages installed."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    command = [sys.executable, "-W", "error", "-c", start + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_a_package_registers_its_families_and_agents(tmp_path):
    install(
        tmp_path,
        "metarl_example",
        """
        import metarl

        def register():
            metarl.register_distribution("ThreeArms-v0", lambda pulls=4: metarl.make("Bandit-v0", arms=3, pulls=pulls))
            metarl.register_agent("mine", "metarl_example:Mine")
            metarl.register_learner("close", "metarl.fewshot.learners.protonet:ProtoNet")
            metarl.register_data("waves", "metarl.fewshot.data.sinusoid:Sinusoid")
            metarl.register_objective("plainest", "metarl.fewshot.objectives.plain:Objective")

        class Mine(metarl.Agent):
            pass
        """,
    )
    done = run_beside(
        tmp_path,
        """
        import metarl
        from metarl.registry import agent_class
        assert "ThreeArms-v0" in metarl.list_distributions() and "Bandit-v0" in metarl.list_distributions()
        assert metarl.make("ThreeArms-v0", pulls=7).horizon == 7
        assert agent_class("mine").__name__ == "Mine" and "mine" in metarl.list_agents()
        assert {"close", "maml"} <= set(metarl.list_learners())
        assert {"waves", "omniglot"} <= set(metarl.list_data())
        assert {"plainest", "fairness"} <= set(metarl.list_objectives())
        from metarl.fewshot.learners import learner_class
        assert learner_class("close") is learner_class("protonet")
        """,
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_does_not_load_is_named(tmp_path):
    install(tmp_path, "metarl_broken", "import no_such_module_anywhere")
    done = run_beside(tmp_path, "from metarl.registry import list_distributions; list_distributions()")
    assert done.returncode == 1
    assert "UsageError: plugin 'metarl_broken' (metarl_broken:register) does not load" in done.stderr
