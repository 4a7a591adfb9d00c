"""Which of HELM's metrics is the accuracy of a run.

HELM names one main metric a scenario, in its schemas (``schema_classic.yaml``, ``schema_lite.yaml``,
``schema_capabilities.yaml`` of crfm-helm 0.5.16), and run folders do not repeat it. Most follow from
what the run reports: the first in :data:`PREFERENCE`. The scenarios where that order would choose
otherwise are in :data:`MAIN_METRICS`.
"""

from collections.abc import Mapping

# Main metrics in HELM's schemas; those that few scenarios report come first, so that a mathematics or a
# translation scenario is not judged by a string comparison that it also reports.
PREFERENCE = (
    "math_equiv_chain_of_thought", "math_equiv", "f1_set_match", "exact_match_indicator", "final_number_exact_match",
    "chain_of_thought_correctness", "ifeval_strict_accuracy", "omni_math_accuracy", "wildbench_score_rescaled",
    "cleva_math_result_match", "cleva_top1_accuracy", "NDCG@10", "RR@10", "pass", "test_avg", "rouge_2",
    "quasi_exact_match", "exact_match", "f1_score", "bleu_4",
)  # fmt: skip

MAIN_METRICS = {
    # Multiple choice: the answer is mapped to a choice, so nothing is left to normalise.
    **dict.fromkeys(("blimp", "hellaswag", "mmlu", "openbookqa", "thai_exam", "truthful_qa"), "exact_match"),
    # Free answers of a few words.
    **dict.fromkeys(("narrative_qa", "natural_qa_closedbook", "natural_qa_openbook_longans", "quac"), "f1_score"),
    "wmt_14": "bleu_4",
}


def candidate_metrics(accuracy_metric: str | Mapping[str, str] | None) -> list[str]:
    """Names of every metric that :func:`preferred_metrics` may ask for."""
    if isinstance(accuracy_metric, str):
        return [accuracy_metric]
    return list(dict.fromkeys([*(accuracy_metric or {}).values(), *PREFERENCE]))


def preferred_metrics(scenario: str, groups: list[str], accuracy_metric: str | Mapping[str, str] | None) -> list[str]:
    """Metrics that can stand for the accuracy of a run, best first; the first that the run reports counts.

    Parameters
    ----------
    scenario : str
        ``mmlu:subject=anatomy``: the whole name and the part before the colon are looked up.
    groups : list of str
        HELM's run groups, ``["mmlu", "mmlu_anatomy"]``.
    accuracy_metric : str, mapping or None
        A metric for all runs; or one by scenario or run group, HELM's own choice for the others.
        What is asked for by name is not replaced by another.
    """
    if isinstance(accuracy_metric, str):
        return [accuracy_metric]
    names = [scenario, scenario.partition(":")[0], *groups]
    for name in names:
        if name in (accuracy_metric or {}):
            return [accuracy_metric[name]]
    mains = [MAIN_METRICS[name] for name in names if name in MAIN_METRICS]
    return [*mains, *PREFERENCE]
