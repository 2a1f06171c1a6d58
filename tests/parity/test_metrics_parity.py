"""Our figures against those of trec_eval (through pytrec_eval), scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from embedkit.data.qrels import ranking
from embedkit.evaluation.agreement import average_precision, cluster_agreement, pearson, spearman
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.evaluation.significance import randomisation_test

pytestmark = pytest.mark.parity

# Both sides add the same float64 terms, in another order at worst.
TOLERANCE = 1e-12

# Few ids and few scores: ties, missing documents and unjudged ones are then the rule. Of the ids, some order
# differently by UTF-16 than by UTF-8, and "10" stands before "9".
DOC_IDS = ["a", "b", "B", "d1", "9", "10", "é", "\ufffd", "😀", "z-z", "aa", "ab"]
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 - 1e-9, -1.0, 2.5]),
    st.floats(-1e6, 1e6, allow_nan=False),
)
JUDGEMENTS = st.dictionaries(st.sampled_from(DOC_IDS), st.integers(-2, 4), min_size=1)
HITS = st.dictionaries(st.sampled_from(DOC_IDS), SCORES)
QUERY_IDS = st.sampled_from(["q1", "q2", "q3", "q4"])
QRELS = st.dictionaries(QUERY_IDS, JUDGEMENTS, min_size=1)
RUNS = st.dictionaries(QUERY_IDS, HITS, min_size=1)

CUTOFFS = (1, 2, 3, 5, 10, 100)
OURS = {
    "ndcg": Metric("ndcg"),
    "map": Metric("map"),
    "recip_rank": Metric("mrr"),
    **{f"ndcg_cut_{k}": Metric("ndcg", k) for k in CUTOFFS},
    **{f"map_cut_{k}": Metric("map", k) for k in CUTOFFS},
    **{f"recall_{k}": Metric("recall", k) for k in CUTOFFS},
    **{f"P_{k}": Metric("p", k) for k in CUTOFFS},
    **{f"success_{k}": Metric("success", k) for k in CUTOFFS},
}


def _evaluator(qrels: dict[str, dict[str, int]], measures: set[str]):  # type: ignore[no-untyped-def]  # not typed there
    import pytrec_eval

    # It writes outside its memory where a query has negative levels but no relevant document; there every value is
    # 0 anyway, so 0 stands in for the negative ones.
    safe = {
        query_id: judgements
        if any(level > 0 for level in judgements.values())
        else dict.fromkeys(judgements, 0)
        for query_id, judgements in qrels.items()
    }
    return pytrec_eval.RelevanceEvaluator(safe, measures)


def _measures() -> set[str]:
    cut = ",".join(map(str, CUTOFFS))
    families = {f"{name}.{cut}" for name in ("ndcg_cut", "map_cut", "recall", "P", "success")}
    return families | {"ndcg", "map", "recip_rank"}


def _answerable(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> bool:
    """Say whether we answer at all: with nothing relevant, or no query in common, we refuse."""
    relevant = any(level > 0 for judgements in qrels.values() for level in judgements.values())
    return relevant and any(run.get(query_id) for query_id in qrels)


@settings(max_examples=400, deadline=None)
@given(QRELS, RUNS)
@example({"q1": {"a": 1, "b": 2}}, {"q1": {"a": 1.0, "b": 1.0, "d1": 1.0}})
@example({"q1": {"a": 1}, "q2": {"a": -2, "b": 1}, "q3": {"a": 0}}, {"q1": {"b": 3.0}, "q4": {"a": 1.0}})
@example({"q1": {"b": 1}}, {"q1": {"a": 1.0, "b": 1.0 + 1e-9}})  # one float32, so a tie for trec_eval
def test_every_metric_equals_trec_eval_for_every_query(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]
) -> None:
    assume(_answerable(qrels, run))
    theirs = _evaluator(qrels, _measures()).evaluate(run)
    ours = evaluate_retrieval(qrels, run, list(OURS.values()))
    for measure, metric in OURS.items():
        values = ours.per_query[str(metric)]
        assert list(values) == list(qrels)
        for query_id, value in values.items():
            # trec_eval leaves a query out that the run lacks; -c then counts it as 0, as we do.
            expected = theirs[query_id][measure] if query_id in theirs else 0.0
            assert value == pytest.approx(expected, abs=TOLERANCE), (measure, query_id)
        mean = sum(values.values()) / len(qrels)
        assert ours.means[str(metric)] == pytest.approx(mean, abs=TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(QRELS, RUNS, st.sampled_from(CUTOFFS))
def test_mrr_with_a_cutoff_equals_trec_eval_on_the_cut_run(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], k: int
) -> None:
    assume(_answerable(qrels, run))
    cut = {query_id: {each: scores[each] for each in ranking(scores)[:k]} for query_id, scores in run.items()}
    theirs = _evaluator(qrels, {"recip_rank"}).evaluate(cut)
    for query_id, value in evaluate_retrieval(qrels, run, [Metric("mrr", k)]).per_query[f"mrr@{k}"].items():
        expected = theirs[query_id]["recip_rank"] if query_id in theirs else 0.0
        assert value == pytest.approx(expected, abs=TOLERANCE)


@settings(max_examples=150, deadline=None)
@given(QRELS, RUNS, st.sampled_from(CUTOFFS))
def test_exponential_gain_equals_trec_eval_on_exponential_levels(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], k: int
) -> None:
    assume(_answerable(qrels, run))
    gains = {
        query_id: {doc_id: 2 ** max(level, 0) - 1 for doc_id, level in judgements.items()}
        for query_id, judgements in qrels.items()
    }
    theirs = _evaluator(gains, {f"ndcg_cut.{k}"}).evaluate(run)
    ours = evaluate_retrieval(qrels, run, [Metric("ndcg_exp", k)]).per_query[f"ndcg_exp@{k}"]
    for query_id, value in ours.items():
        expected = theirs[query_id][f"ndcg_cut_{k}"] if query_id in theirs else 0.0
        assert value == pytest.approx(expected, abs=TOLERANCE)


def test_a_large_run_of_float32_scores_equals_trec_eval() -> None:
    generator = np.random.default_rng(3)
    doc_ids = [f"d{number}" for number in range(3_000)]
    qrels, run = {}, {}
    for query in range(20):
        judged = generator.choice(doc_ids, 200, replace=False)
        qrels[f"q{query}"] = {str(each): int(generator.integers(-1, 4)) for each in judged}
        scores = generator.normal(size=1_000).astype(np.float32).round(2)  # many ties
        hits = generator.choice(doc_ids, 1_000, replace=False)
        run[f"q{query}"] = dict(zip(map(str, hits), map(float, scores), strict=True))
    theirs = _evaluator(qrels, _measures()).evaluate(run)
    ours = evaluate_retrieval(qrels, run, list(OURS.values()))
    for measure, metric in OURS.items():
        for query_id, value in ours.per_query[str(metric)].items():
            assert value == pytest.approx(theirs[query_id][measure], abs=TOLERANCE), (measure, query_id)


# Correlations of rows scaled by wild factors differ in the last digits: scipy sums in another order.
CORRELATION_TOLERANCE = 1e-9
ROWS = st.integers(3, 40).flatmap(
    lambda size: st.tuples(*[st.lists(st.integers(-5, 5), min_size=size, max_size=size)] * 2)
)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_correlations_equal_scipy(rows: tuple[list[int], list[int]]) -> None:
    from scipy import stats

    x, y = rows
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=CORRELATION_TOLERANCE)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=CORRELATION_TOLERANCE)


@pytest.mark.parametrize(("scale", "shift"), [(1e-200, 0.0), (1e200, 0.0), (1e-3, 1e4)])
def test_correlations_equal_scipy_on_numbers_of_any_size(scale: float, shift: float) -> None:
    from scipy import stats

    generator = np.random.default_rng(5)
    x = generator.normal(size=500)
    y = x + generator.normal(size=500)
    assert spearman(x * scale + shift, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert pearson(x * scale + shift, y) == pytest.approx(
        stats.pearsonr(x, y).statistic, abs=CORRELATION_TOLERANCE
    )


LABELLED = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0])), min_size=2
)


@settings(max_examples=200, deadline=None)
@given(LABELLED)
def test_average_precision_equals_sklearn(pairs: list[tuple[int, float]]) -> None:
    from sklearn.metrics import average_precision_score

    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    assume(0 < sum(labels) < len(labels))
    assert average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores), abs=TOLERANCE
    )


CLUSTERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(CLUSTERS)
def test_cluster_agreement_equals_sklearn(pairs: list[tuple[int, int]]) -> None:
    from sklearn import metrics

    labels, clusters = [label for label, _ in pairs], [cluster for _, cluster in pairs]
    ours = cluster_agreement(labels, clusters)
    # Entropies are differences of logarithms: near 0 only their absolute error is small.
    theirs = metrics.homogeneity_completeness_v_measure(labels, clusters)
    assert (ours.homogeneity, ours.completeness, ours.v_measure) == pytest.approx(theirs, abs=1e-9)
    assert ours.adjusted_rand == pytest.approx(metrics.adjusted_rand_score(labels, clusters), abs=1e-9)


DIFFERENCES = st.lists(st.integers(-8, 8).map(lambda number: number / 8), min_size=2, max_size=9)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_the_exact_randomisation_test_equals_scipy(differences: list[float]) -> None:
    from scipy import stats

    theirs = stats.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    ours = randomisation_test(differences)
    assert ours.exact
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=TOLERANCE)


def test_the_sampled_randomisation_test_agrees_with_scipy() -> None:
    from scipy import stats

    differences = np.random.default_rng(11).normal(0.25, 1.0, 60)
    theirs = stats.permutation_test(
        (differences, np.zeros(60)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    ours = randomisation_test(differences, rounds=20_000)
    assert not ours.exact
    # Each is a share of 20,000 coin throws; five standard errors of their difference.
    error = 5 * np.sqrt(2 * theirs.pvalue * (1 - theirs.pvalue) / 20_000)
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=error)
