"""The recurrent mapping model against PyTorch's own LSTM and GRU, which read each whole sequence."""

import pytest
import torch

from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learners.rnn import RecurrentMapping, RNNConfig

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_query_ends_a_sequence_of_its_own(cell, rows):
    shape = EpisodeShape(3, 2, 4)
    learner = RecurrentMapping(RNNConfig(cell=cell, units=7), rows.spec(shape))
    with torch.no_grad():
        for name in ("map.core.bias", "map.core.recurrent_bias", "map.bias"):  # zeros would hide a mistake
            learner.parameters[name].normal_(generator=torch.Generator().manual_seed(0))
    reference = MODULES[cell](3 + 3, 7, batch_first=True)
    names = {"weight_ih_l0": "input", "weight_hh_l0": "recurrent", "bias_ih_l0": "bias", "bias_hh_l0": "recurrent_bias"}
    reference.load_state_dict({theirs: learner.map[f"core.{ours}"] for theirs, ours in names.items()})
    episodes = rows.episodes("test", 2, shape, seed=0)
    support, query = episodes.support, episodes.query
    with torch.no_grad():
        scores = learner.adapt(support)(query.x)
        for task in range(2):
            pairs = torch.cat([support.x[task], torch.eye(3)[support.y[task]]], 1)
            for row in range(query.x.shape[1]):
                end = torch.cat([query.x[task, row], torch.zeros(3)])[None]
                outputs, _ = reference(torch.cat([pairs, end])[None])
                expected = learner.map["weight"] @ outputs[0, -1] + learner.map["bias"]
                torch.testing.assert_close(scores[task, row], expected, rtol=1e-4, atol=1e-5)


def test_the_forget_gate_is_open_at_first(rows):
    learner = RecurrentMapping(RNNConfig(units=4), rows.spec(EpisodeShape(3, 1, 1)))
    assert learner.map["core.bias"].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
