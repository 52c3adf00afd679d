"""Learners by name. Each is a `Learner` with its options beside it; the module is imported when it is asked for."""

from metarl.fewshot.learner import Learner
from metarl.fewshot.names import import_named

LEARNERS = {
    "maml": "metarl.fewshot.learners.maml:MAML",
    "fomaml": "metarl.fewshot.learners.maml:FirstOrderMAML",
    "anil": "metarl.fewshot.learners.maml:ANIL",
    "reptile": "metarl.fewshot.learners.reptile:Reptile",
    "protonet": "metarl.fewshot.learners.protonet:ProtoNet",
    "matching": "metarl.fewshot.learners.matching:Matching",
    "siamese": "metarl.fewshot.learners.siamese:Siamese",
    "metanet": "metarl.fewshot.learners.metanet:MetaNet",
    "cnp": "metarl.fewshot.learners.cnp:ConditionalNeuralProcess",
    "rnn": "metarl.fewshot.learners.rnn:RecurrentMapping",
    "snail": "metarl.fewshot.learners.snail:SNAIL",
    "mann": "metarl.fewshot.learners.mann:MANN",
    "ntm": "metarl.fewshot.learners.ntm:NTM",
    "l2o": "metarl.fewshot.learners.l2o:L2O",
}
"""Name → class of learner."""


def learner_class(name: str) -> type[Learner]:
    """The class of the learner called `name`; raises `UsageError` for an unknown one."""
    return import_named(LEARNERS, name, "learner")
