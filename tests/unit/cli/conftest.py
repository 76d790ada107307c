"""A data folder as a server leaves it, and the command line called in this process."""

from __future__ import annotations

import asyncio
import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from harness.begun import begun
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Actor
from muniment_services import bootstrap
from muniment_services.cli.main import main
from muniment_services.config import Settings
from muniment_services.domain.artifact_changes import RecordUpload
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.run_data import LogBatch
from muniment_services.domain.run_life import CreateRun, UpdateRun
from muniment_services.write import Caller, Outcome

ACTOR = Actor(principal_id="anna", auth_method="local", token_id="annas-token")
FILE = b"what was logged"
FILES = "artifacts/files"
RUN_ID_FILE = "run_id"


@dataclass(frozen=True, slots=True)
class Called:
    """How a call of the command line ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of standard output."""
        return self.out.splitlines()


Call = Callable[..., Called]


async def _fill(folder: Path) -> None:
    def about(outcome: Outcome) -> bytes:
        assert outcome.event is not None
        return outcome.event.envelope.aggregate_id.encode()

    caller = Caller(actor=ACTOR, request_id="r", workspace="default")
    async with bootstrap.services(Settings(data_dir=begun(folder))) as services:
        submit = services.writer.submit
        create = CreateExperiment(
            name="e", artifact_location=None, artifact_root="mlflow-artifacts:"
        )
        await submit(caller, create, about)
        start = CreateRun(experiment_id="1", name="first run", user_id="anna", start_time_ms=5)
        run_id = (await submit(caller, start, about)).decode()
        points = pack(["rmse", "rmse", "gap"], [0.5, 0.43, math.nan], [7, 8, 9], [1, 2, 3])
        tags = (("team", "x\x1b[31m"),)
        batch = LogBatch(run_id=run_id, params=(("lr", "0.1"),), tags=tags, metrics=points)
        await submit(caller, batch, about)
        await submit(caller, UpdateRun(run_id=run_id, status="FINISHED"), about)
        path = f"1/{run_id}/artifacts/a.txt"
        digest = hashlib.sha256(FILE).digest()
        await submit(caller, RecordUpload(path=path, size_bytes=len(FILE), sha256=digest), about)
    (folder / FILES / path).parent.mkdir(parents=True)
    (folder / FILES / path).write_bytes(FILE)
    (folder / RUN_ID_FILE).write_text(run_id)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nobody changes: the first events of a log, an experiment and one run."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    asyncio.run(_fill(folder))
    return folder


@pytest.fixture
def data_dir(filled: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


@pytest.fixture
def run_id(filled: Path) -> str:
    """The run's id."""
    return (filled / RUN_ID_FILE).read_text()


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Call]:
    """Calls `muniment` with arguments; without terminal, settings or a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUNIMENT_CONFIG", raising=False)

    def run(*arguments: object) -> Called:
        monkeypatch.setattr("sys.argv", ["muniment", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        captured = capsys.readouterr()
        return Called(status, captured.out, captured.err)

    yield run
    structlog.reset_defaults()  # The command line logs to a standard error that is closed now.
