"""What the few-shot learners learn, beside their papers."""

from sources import load, percent, rows

OMNIGLOT_PAPERS = {
    ("protonet", 1): "98.8",
    ("protonet", 5): "99.7",
    ("maml", 1): "98.7",
    ("maml", 5): "99.9",
    ("reptile", 1): "97.7",
    ("reptile", 5): "99.5",
    ("matching", 1): "98.1",
    ("matching", 5): "98.9",
    ("siamese", 1): "97.3",
    ("siamese", 5): "98.4",
    ("metanet", 1): "98.9",
    ("snail", 1): "99.1",
    ("snail", 5): "99.8",
    ("cnp", 1): "95.3",
    ("cnp", 5): "98.5",
}
"""Snell et al. 2017, table 1; Finn et al. 2017; Nichol et al. 2018 (transductive); Vinyals et al. 2016, table 1 (its
Siamese row included); Munkhdalai and Yu 2017; Mishra et al. 2018; Garnelo et al. 2018, table 2."""
MANN_PAPER = {1: "36.4", 2: "82.8", 5: "94.9", 10: "98.1"}
"""Santoro et al. 2016, table 1, one-hot labels, five classes."""


def omniglot() -> str:
    """Accuracy of the few-shot learners on 5-way Omniglot beside their papers, and what training took."""
    body = []
    for result in load("results/fewshot/omniglot-*.json"):
        for tested in (result, *result.get("further", [])):
            score = percent(tested["accuracy"], tested["ci95"]) + ("" if "interval" in tested else " *")
            paper = OMNIGLOT_PAPERS.get((result["learner"], tested["shots"]), "–")
            is_papers = tested["normalisation"] == "transductive" and tested["queries"] <= tested["shots"]
            if result["learner"] in ("maml", "reptile") and not is_papers:
                paper = "–"  # the papers are transductive, with as many queries as shots, or one
            training = "the same"
            if tested is result:
                training = f"{result['training_steps']:,}, {result['training_seconds'] / 60:.0f} min"
            sizes = [str(tested[name]) for name in ("shots", "queries")]
            body.append([f"`{result['learner']}`", *sizes, score, paper, training, tested["normalisation"]])
    return rows(["5-way", "shots", "queries", "accuracy, %", "paper", "training steps, 1 core", "normalisation"], body)


def sinusoid() -> str:
    """Mean squared error of MAML on sine waves by gradient steps, for each number of shots."""
    (result,) = load("results/fewshot/maml-sinusoid.json")
    body = [["MAML paper", "5", "0.67", "0.38", "0.35"]]
    for tested in (result, *result["further"]):
        errors = {row["steps"]: f"{row['mse']:.2f} ± {row['ci95']:.2f}" for row in tested["curve"]}
        body.append(["metarl", str(tested["shots"]), *(errors[steps] for steps in (1, 5, 10))])
    return rows(["sine waves", "shots", "1 step", "5 steps", "10 steps"], body)


def fairness() -> str:
    """Accuracy and the gaps between groups on the biased table, without and with the penalty."""
    names = {
        "parity_gap": "parity gap",
        "equalised_odds_gap": "equalised-odds gap",
        "worst_group_accuracy": "worst group",
    }
    body = []
    for label, file in (("plain", "maml-biased-plain"), ("penalised", "maml-biased-fair")):
        (result,) = load(f"results/fewshot/{file}.json")
        figures = [result["metrics"][name] for name in names]
        cells = [(result["accuracy"], result["ci95"]), *((figure["mean"], figure["ci95"]) for figure in figures)]
        body.append([label, *(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)])
    return rows(["MAML, biased table", "accuracy", *names.values()], body)


def mann() -> str:
    """Accuracy of the memory-augmented network by how often it has seen the class."""
    (result,) = load("results/fewshot/mann-omniglot.json")
    measured = {row["steps"] + 1: percent(row["accuracy"], row["ci95"]) for row in result["curve"]}
    body = [["MANN paper", *MANN_PAPER.values()], ["metarl", *(measured[instance] for instance in MANN_PAPER)]]
    return rows(["accuracy at a class's instance, %", *(str(instance) for instance in MANN_PAPER)], body)


def robustness() -> str:
    """Accuracy without and with an attack on the queries, trained plainly and on attacked queries."""
    body = []
    for label, file in (("plain", "maml-glyphs-plain"), ("adversarial querying", "maml-glyphs-adversarial")):
        (result,) = load(f"results/fewshot/{file}.json")
        figures = (result["metrics"][name] for name in ("natural_accuracy", "adversarial_accuracy"))
        body.append([label, *(percent(f["mean"], f["ci95"]) for f in figures)])
    return rows(["MAML, glyphs, accuracy in %", "natural", "attacked"], body)


def copy() -> str:
    """Bits lost per vector of 8 bits by the length of the sequence."""
    (figures,) = load("benchmarks/copy.json")
    titles = {"ntm": "Neural Turing Machine", "lstm": "LSTM"}
    body = []
    for name, title in titles.items():
        result = figures["networks"][name]
        bits = {int(length): value for length, value in result["bits_per_vector"].items()}
        trained = max(bits[length] for length in range(1, figures["config"]["max_length"] + 1))
        further = (f"{bits[length]:.2g}" for length in figures["config"]["test_lengths"])
        minutes = f"{result['training_seconds'] / 60:.0f}"
        body.append([title, f"{result['parameters']:,}", minutes, f"{trained:.2g}", *further])
    lengths = (f"length {length}" for length in figures["config"]["test_lengths"])
    return rows(["bits lost per vector of 8", "parameters", "minutes, 1 core", "worst of 1 to 20", *lengths], body)


def optimizer() -> str:
    """Loss after 100 steps on unseen quadratics, of the learned optimizer and of others at their best rate."""
    (figures,) = load("benchmarks/l2o.json")
    titles = {"learned": "LSTM, learned", "adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD"}
    body = []
    for name, title in titles.items():
        result = figures["optimizers"][name]
        rate = f"{result['learning_rate']:.3g}" if "learning_rate" in result else "–"
        loss = f"{result['final_loss']:.3f} ± {result['final_loss_error']:.3f}"
        body.append([title, rate, loss, f"{result['final_loss_median']:.3f}"])
    return rows(["10-d quadratics, 100 steps", "step size", "loss ± standard error", "median"], body)
