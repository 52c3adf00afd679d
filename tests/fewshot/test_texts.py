"""Free text as inputs, and few-shot classification of short texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import HashingVectorizer

import metarl.fewshot
from metarl import UsageError
from metarl.fewshot import FewShotConfig
from metarl.fewshot.data import open_data
from metarl.scripts.cli import main

TOPICS = {
    "weather": "rain sun cloud storm wind snow frost thunder fog drizzle hail breeze",
    "kitchen": "bread butter salt oven flour sugar pan knife soup onion garlic cheese",
    "football": "goal keeper pitch striker whistle referee penalty corner league match score team",
    "music": "violin piano chord rhythm song choir drum concert tune melody guitar singer",
    "money": "bank loan interest tax wage price coin credit budget salary invoice debt",
}
FILLER = "the a was very in on with and some today there again people said after before it they had seen"


def write_texts(folder: Path, each: int = 60) -> str:
    """Texts of ten words, four of them of the topic."""
    generator = np.random.default_rng(0)
    lines = ["text,topic"]
    for topic, words in TOPICS.items():
        for _ in range(each):
            chosen = [*generator.choice(words.split(), 4), *generator.choice(FILLER.split(), 6)]
            lines.append(f"{' '.join(generator.permutation(chosen))},{topic}")
    (folder / "texts.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "texts.csv")


def test_inputs_are_hashed_words(tmp_path: Path) -> None:
    data = open_data("csv", {"csv": write_texts(tmp_path, 5), "label": "topic", "text": ("text",), "text_inputs": 64})
    (feature,) = data.features  # type: ignore[attr-defined]
    texts = [line.split(",")[0] for line in Path(tmp_path / "texts.csv").read_text().splitlines()[1:]]
    expected = HashingVectorizer(n_features=64, ngram_range=(1, 1)).transform(texts).toarray() * 4
    encoded = data.encode(tmp_path / "texts.csv")  # type: ignore[attr-defined]
    torch.testing.assert_close(encoded, torch.from_numpy(expected).float())
    assert data.summary()[0] == "text: free text of 10 to 10 words: 64 inputs of hashed words"
    assert feature.is_numeric == [False] * 64
    (tmp_path / "new.csv").write_text("text\nunheard of words\nNA\n")
    new = data.encode(tmp_path / "new.csv")  # type: ignore[attr-defined]
    assert new[0].norm() == pytest.approx(4)
    assert not new[1].any()


def test_free_text_is_offered_in_the_line_that_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'text' holds free text, such as .*: read it with --text text, or leave"):
        open_data("csv", {"csv": write_texts(tmp_path, 10), "label": "topic"})
    with pytest.raises(UsageError, match="cannot be both --text and something else"):
        open_data("csv", {"csv": write_texts(tmp_path, 10), "label": "topic", "text": ("topic",)})


def test_characters_are_for_words_with_many_forms(tmp_path: Path) -> None:
    options = {"csv": write_texts(tmp_path, 5), "label": "topic", "text": ("text",)}
    by_words, by_characters = (open_data("csv", {**options, "text_by": by}) for by in ("words", "characters"))
    (tmp_path / "forms.csv").write_text("text\nsinger\nsingers\n")
    similarity = []
    for data in (by_words, by_characters):
        one, other = data.encode(tmp_path / "forms.csv")  # type: ignore[attr-defined]
        similarity.append(float(torch.cosine_similarity(one, other, dim=0)))
    assert similarity[0] < 0.2
    assert similarity[1] > 0.6


def test_five_topics_from_five_texts_each(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """From a CSV of two columns, by the command line; a new text is classified by the run."""
    words = ["--data", "csv", "--csv", write_texts(tmp_path), "--label", "topic", "--text", "text", "--shots", "5"]
    words += ["--iterations", "60", "--episodes", "30", "--no-baselines", "--output", str(tmp_path / "run")]
    assert main(["fewshot", "protonet", *words]) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (result["ways"], result["shots"]) == (5, 5)
    assert result["accuracy"] > 0.8
    run = metarl.load_run(tmp_path / "run")
    data = run.experiment.data  # type: ignore[union-attr]
    learner = metarl.fewshot.load(tmp_path / "run")
    (tmp_path / "support.csv").write_text("text\n" + "\n".join(TOPICS.values()) + "\n")
    (tmp_path / "query.csv").write_text("text\nthey had flour and sugar in the oven\n")
    support, query = (data.encode(tmp_path / f"{name}.csv") for name in ("support", "query"))
    assert int(learner.predict(support, list(range(5)), query).argmax()) == list(TOPICS).index("kitchen")


def test_topics_never_seen_in_training(tmp_path: Path) -> None:
    """Ten topics of made-up words, split by topic: what is learned is to look past the filler."""
    generator = np.random.default_rng(1)
    lines = ["text,topic"]
    for topic in range(15):
        own = [f"w{topic}{letter}" for letter in "abcdefgh"]
        for _ in range(40):
            chosen = [*generator.choice(own, 4), *generator.choice(FILLER.split(), 6)]
            lines.append(f"{' '.join(generator.permutation(chosen))},t{topic}")
    (tmp_path / "topics.csv").write_text("\n".join(lines) + "\n")
    config = FewShotConfig(
        "protonet",
        "csv",
        shots=5,
        ways=4,
        data_options={"csv": str(tmp_path / "topics.csv"), "label": "topic", "text": ("text",), "split_by": "classes"},
        learner_options={"iterations": 60},
        baselines=False,
        episodes=30,
        output=tmp_path / "run",
    )
    result = json.loads((metarl.train(config, progress=False) / "evaluation.json").read_text())
    assert result["accuracy"] > 0.75  # 0.69 without training
