"""The built-in learners, data sets and objectives. The entry-point group `metarl.plugins` calls `register`."""

from metarl.registry import register_data, register_learner, register_objective


def register() -> None:
    """Registers every built-in learner, data set and objective."""
    register_learner("maml", "metarl.fewshot.learners.maml:MAMLLearner")
    register_learner("fomaml", "metarl.fewshot.learners.maml:FirstOrderMAMLLearner")
    register_learner("anil", "metarl.fewshot.learners.maml:ANIL")
    register_learner("reptile", "metarl.fewshot.learners.reptile:Reptile")
    register_learner("protonet", "metarl.fewshot.learners.protonet:ProtoNet")
    register_learner("matching", "metarl.fewshot.learners.matching:Matching")
    register_learner("siamese", "metarl.fewshot.learners.siamese:Siamese")
    register_learner("metanet", "metarl.fewshot.learners.metanet:MetaNet")
    register_learner("cnp", "metarl.fewshot.learners.cnp:ConditionalNeuralProcess")
    register_learner("rnn", "metarl.fewshot.learners.rnn:RecurrentMapping")
    register_learner("snail", "metarl.fewshot.learners.snail:SNAIL")
    register_learner("mann", "metarl.fewshot.learners.mann:MANN")
    register_learner("ntm", "metarl.fewshot.learners.ntm:NTM")
    register_learner("l2o", "metarl.fewshot.learners.l2o:L2O")
    register_data("sinusoid", "metarl.fewshot.data.sinusoid:Sinusoid")
    register_data("glyphs", "metarl.fewshot.data.glyphs:Glyphs")
    register_data("omniglot", "metarl.fewshot.data.omniglot:Omniglot")
    register_data("digits", "metarl.fewshot.data.tables:Digits")
    register_data("iris", "metarl.fewshot.data.tables:Iris")
    register_data("wine", "metarl.fewshot.data.tables:Wine")
    register_data("breast-cancer", "metarl.fewshot.data.tables:BreastCancer")
    register_data("csv", "metarl.fewshot.data.csv_table:CsvTable")
    register_data("npz", "metarl.fewshot.data.arrays:NpzData")
    register_data("biased", "metarl.fewshot.data.biased:BiasedTables")
    register_data("folder", "metarl.fewshot.data.folder:PictureFolder")
    register_data("miniimagenet", "metarl.fewshot.data.imagenet:MiniImageNet")
    register_data("tieredimagenet", "metarl.fewshot.data.imagenet:TieredImageNet")
    register_objective("plain", "metarl.fewshot.objectives.plain:Objective")
    register_objective("fairness", "metarl.fewshot.objectives.fairness:Fairness")
    register_objective("adversarial", "metarl.fewshot.objectives.robust:Adversarial")
    register_objective("noisy-support", "metarl.fewshot.objectives.noisy_support:NoisySupport")
