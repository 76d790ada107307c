"""Searching runs and experiments as people do: filters, order, and thousands of rows by pages."""

import math
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.store.entities import PagedList

MANY_RUNS = 2_600
FIRST_START_MS = 1_700_000_000_000
WRITERS = 4


def names_of(runs: list[Run]) -> list[str]:
    """The names of runs, in their order."""
    return [run.info.run_name for run in runs]


@pytest.fixture(scope="module")
def fruits(tracking_uri: str) -> str:
    """An experiment of five runs that differ in all that can be searched; gives its id."""
    client = MlflowClient(tracking_uri)
    experiment = mlflow.set_experiment(f"fruits-{mlflow.__version__}-{id(client):x}")
    rows = [
        ("apple", 0.9, "svm", "FINISHED", "Green"),
        ("banana", 0.5, "rf", "FAILED", "yellow"),
        ("cherry", math.nan, "rf", "FINISHED", "red"),
        ("date", -2.0, "Rf", "RUNNING", "brown 100%"),
        ("elder", None, None, "FINISHED", None),
    ]
    for number, (name, accuracy, kind, status, colour) in enumerate(rows):
        at_ms = FIRST_START_MS + number * 1000
        run = client.create_run(experiment.experiment_id, start_time=at_ms, run_name=name)
        client.log_batch(
            run.info.run_id,
            metrics=[] if accuracy is None else [Metric("val/acc", accuracy, at_ms, 0)],
            params=[] if kind is None else [Param("kind", kind)],
            tags=[] if colour is None else [RunTag("my colour", colour)],
        )
        if status != "RUNNING":
            client.set_terminated(run.info.run_id, status, end_time=at_ms + 500)
    return str(experiment.experiment_id)


@pytest.mark.parametrize(
    ("filter_string", "expected"),
    [
        ("", "apple banana cherry date elder"),
        ("metrics.`val/acc` > 0.4", "apple banana"),
        ("metrics.`val/acc` <= 0.5", "banana date"),
        ('metrics."val/acc" != 0.5', "apple cherry date"),
        ("params.kind = 'rf'", "banana cherry"),
        ("params.kind != 'rf'", "apple date"),
        ("params.kind ILIKE 'RF'", "banana cherry date"),
        ("params.kind LIKE 'R%'", "date"),
        ("params.kind IS NULL", "elder"),
        ("params.kind IS NOT NULL", "apple banana cherry date"),
        ("tags.`my colour` LIKE '%e%'", "apple banana cherry"),
        ("tags.`my colour` = 'brown 100%'", "date"),
        ("attributes.status = 'FINISHED'", "apple cherry elder"),
        ("status != 'FINISHED'", "banana date"),
        ("run_name ILIKE '%AN%'", "banana"),
        (f"attributes.start_time >= {FIRST_START_MS + 3000}", "date elder"),
        (f"end_time < {FIRST_START_MS + 1000}", "apple"),
        ("params.kind = 'rf' and metrics.`val/acc` > 0 AND status = 'FAILED'", "banana"),
        ("params.nothing = 'x'", ""),
    ],
)
def test_runs_are_filtered(
    client: MlflowClient, fruits: str, filter_string: str, expected: str
) -> None:
    found = client.search_runs([fruits], filter_string, order_by=["start_time ASC"])
    assert names_of(found) == expected.split()


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ([], "elder date cherry banana apple"),
        (["metrics.`val/acc` ASC"], "date banana apple cherry elder"),
        (["metrics.`val/acc` DESC"], "apple banana date cherry elder"),
        (["params.kind", "attributes.start_time"], "date banana cherry apple elder"),
        (["tags.`my colour` DESC"], "banana cherry date apple elder"),
        (["status ASC", "run_name DESC"], "banana elder cherry apple date"),
        (["end_time desc"], "elder cherry banana apple date"),
    ],
)
def test_runs_are_ordered(
    client: MlflowClient, fruits: str, order_by: list[str], expected: str
) -> None:
    assert names_of(client.search_runs([fruits], order_by=order_by)) == expected.split()


def test_runs_are_found_by_id_and_by_experiment(client: MlflowClient, fruits: str) -> None:
    runs = client.search_runs([fruits], order_by=["run_name"])
    wanted = [runs[1].info.run_id, runs[4].info.run_id]
    quoted = ", ".join(f"'{run_id}'" for run_id in wanted)
    found = client.search_runs([fruits], f"run_id IN ({quoted})", order_by=["run_name"])
    assert [run.info.run_id for run in found] == wanted
    assert len(client.search_runs([fruits], f"run_id NOT IN ({quoted})")) == 3
    assert client.search_runs([]) == []
    assert client.search_runs(["987654321"]) == []


def test_a_page_ends_where_the_next_begins(client: MlflowClient, fruits: str) -> None:
    first = client.search_runs([fruits], max_results=2, order_by=["metrics.`val/acc`"])
    second = client.search_runs(
        [fruits], max_results=2, order_by=["metrics.`val/acc`"], page_token=first.token
    )
    third = client.search_runs(
        [fruits], max_results=2, order_by=["metrics.`val/acc`"], page_token=second.token
    )
    assert names_of([*first, *second, *third]) == ["date", "banana", "apple", "cherry", "elder"]
    assert not third.token, "the last page has no token"


def all_pages(client: MlflowClient, experiment_id: str, filter_string: str) -> list[list[Run]]:
    """Every page of a search in the order of metric `m`, 500 runs each."""
    pages: list[list[Run]] = []
    token: str | None = None
    while True:
        page: PagedList[Run] = client.search_runs(
            [experiment_id],
            filter_string,
            order_by=["metrics.m"],
            max_results=500,
            page_token=token,
        )
        pages.append(list(page))
        token = page.token
        if not token:
            return pages


@pytest.mark.slow
def test_thousands_of_runs_are_paged_without_gap_or_repeat(
    client: MlflowClient, experiment_id: str
) -> None:
    def make(number: int) -> str:
        run = client.create_run(
            experiment_id, start_time=FIRST_START_MS + number % 7, run_name=f"run {number}"
        )
        metric = Metric("m", float(number % 100), FIRST_START_MS, 0)
        client.log_batch(run.info.run_id, [metric], [Param("number", str(number))])
        return str(run.info.run_id)

    with ThreadPoolExecutor(WRITERS) as pool:
        made = list(pool.map(make, range(MANY_RUNS)))
    assert len(set(made)) == MANY_RUNS

    pages = all_pages(client, experiment_id, "")
    assert [len(page) for page in pages] == [500] * 5 + [100]
    found = [run for page in pages for run in page]
    assert sorted(run.info.run_id for run in found) == sorted(made)
    values = [run.data.metrics["m"] for run in found]
    assert values == sorted(values)
    assert sorted(int(run.data.params["number"]) for run in found) == list(range(MANY_RUNS))

    half = [run for page in all_pages(client, experiment_id, "metrics.m >= 50") for run in page]
    assert len(half) == MANY_RUNS // 2
    assert len(mlflow.search_runs([experiment_id], output_format="list")) == MANY_RUNS
    newest_first = client.search_runs([experiment_id], max_results=MANY_RUNS)
    starts = [run.info.start_time for run in newest_first]
    assert starts == sorted(starts, reverse=True)


def test_experiments_are_searched(client: MlflowClient, unique: str) -> None:
    ids = [
        client.create_experiment(f"{unique}-{name}", tags={"kind": kind})
        for name, kind in [("Alpha", "a"), ("beta", "b"), ("gamma", "a")]
    ]
    mine = f"name LIKE '{unique}-%'"

    def search(filter_string: str, order_by: list[str]) -> list[str]:
        found = client.search_experiments(filter_string=filter_string, order_by=order_by)
        return [experiment.experiment_id for experiment in found]

    assert search(mine, ["name ASC"]) == ids
    assert search(mine, ["name DESC"]) == ids[::-1]
    assert search(f"{mine} AND tags.kind = 'a'", ["name"]) == [ids[0], ids[2]]
    assert search(f"{mine} AND tags.kind != 'a'", []) == [ids[1]]
    assert search(f"name ILIKE '{unique.upper()}-ALPHA'", []) == [ids[0]]
    assert search(f"attribute.name = '{unique}-beta'", []) == [ids[1]]


def test_experiments_are_paged(client: MlflowClient, unique: str) -> None:
    made = [client.create_experiment(f"{unique}-{n:02}") for n in range(12)]
    found: list[Experiment] = []
    token: str | None = None
    while True:
        page = client.search_experiments(
            filter_string=f"name LIKE '{unique}-%'",
            max_results=5,
            order_by=["name"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            break
    assert [experiment.experiment_id for experiment in found] == made
    assert len(mlflow.search_experiments(filter_string=f"name LIKE '{unique}-%'")) == 12
