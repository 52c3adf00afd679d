"""Export of a learner's embedding to ONNX, for programs that have no torch."""

import importlib.util
import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.fewshot.learner import Learner

INPUT, OUTPUT = "raw", "embedding"
"""The names of the graph's input `[n, *shape]` and output `[n, D]`."""


class Embedding(nn.Module):
    """The embedding of a learner as a module: from raw inputs `[n, *shape]`, float32, to `[n, D]`.

    Pictures are floats from 0 to 1 of the size that the learner was trained with. Raises `UsageError` if the learner
    has no embedding apart from the support set, or one that depends on the other examples.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.export import Embedding
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> learner = ProtoNet(ProtoNetConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> Embedding(learner)(torch.zeros(3, 6)).shape
    torch.Size([3, 64])
    """

    def __init__(self, learner: Learner):
        super().__init__()
        if learner.embed(torch.zeros(2, *learner.spec.input_shape, device=learner.device)) is None:
            raise UsageError(f"{type(learner).__name__} has no embedding that does not depend on the support set")
        if learner.normalisation != "none":
            raise UsageError(
                f"the embedding of {type(learner).__name__} is normalised by the examples that it is given together: "
                f"train with --normalisation none"
            )
        self._learner = learner

    def forward(self, raw: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"]:
        embedded = self._learner.embed(self._learner.spec.preprocessing(raw))
        assert embedded is not None
        return embedded


@torch.no_grad()
def export_embedding(learner: Learner, path: Path | str) -> None:
    """Writes the embedding as an ONNX model with the input `raw` and the output `embedding`, for any number of rows.

    The raw inputs are scaled inside the model. Needs the extra `onnx`; raises `UsageError` without it, and for a
    learner without an embedding of its own.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}: pip install 'metarl-kit[onnx]'")
    module, example = Embedding(learner), torch.zeros(2, *learner.spec.input_shape, device=learner.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    write_atomically(Path(path), program.model_proto.SerializeToString())
