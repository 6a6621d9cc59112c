"""Folders on this machine, in an object store and behind fsspec behave alike, and so does a build that uses them."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import read_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.storage import ASIDE, Folder

ROOT = Path(__file__).parent.parent
BUCKET = "logs"
Place = Callable[[str], str]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The address of a folder in a bucket of a server of our own, whose credentials are in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path_factory.mktemp("s3") / "log"
    with said.open("w") as log, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = subprocess.Popen(
            [f"{Path(sys.executable).parent}/moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, said.read_text()
                time.sleep(0.1)
            boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket=BUCKET)
            yield lambda name: f"s3://{BUCKET}/{name}?scheme=http&endpoint_override=127.0.0.1%3A{port}"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture(params=["local", "s3", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A new folder of each kind."""
    name = tmp_path.name
    if request.param == "local":
        return Folder.at(tmp_path / "folder")
    if request.param == "s3":
        return Folder.at(request.getfixturevalue("s3")(f"{name}/folder"))
    return Folder.at(f"memory://{name}/folder")


def test_what_is_written_is_found_and_read(folder: Folder) -> None:
    assert not folder.exists()
    assert folder.files() == []
    assert folder.write("split=train/date=2026-03-01/part-0.parquet", b"abc") == 3
    assert folder.write("a b/ü+c.json", lambda file: file.write(b"12345")) == 5
    assert folder.exists()
    assert folder.exists("a b")
    assert folder.exists("a b/ü+c.json")
    assert not folder.exists("a")
    assert [(file.name, file.size) for file in folder.files()] == [
        ("a b/ü+c.json", 5),
        ("split=train/date=2026-03-01/part-0.parquet", 3),
    ]
    assert folder.read("a b/ü+c.json") == b"12345"
    with folder.open("a b/ü+c.json") as file:
        file.seek(2)
        assert file.read() == b"345"
    with folder.on_this_machine("a b/ü+c.json") as path:
        assert (path.name, path.read_bytes()) == ("ü+c.json", b"12345")


def test_a_folder_in_a_folder(folder: Folder) -> None:
    (folder / "inner/most").write("file", b"x")
    assert [file.name for file in folder.files()] == ["inner/most/file"]
    assert [file.name for file in (folder / "inner").files()] == ["most/file"]
    assert (folder / "inner/most").read("file") == b"x"
    assert str(folder / "inner").endswith("/folder/inner")


def test_a_file_is_as_it_was_listed_until_it_is_written_again(folder: Folder) -> None:
    folder.write("file", b"one")
    (listed,) = folder.files()
    assert folder.stat("file") == listed
    time.sleep(1.1)  # object stores keep whole seconds
    folder.write("file", b"two")
    assert folder.stat("file") != listed
    assert folder.read("file") == b"two"
    assert folder.stat("none") is None


def test_deleting_leaves_the_rest(folder: Folder) -> None:
    for name in ("a/b/one", "a/b/two", "a/three", "four"):
        folder.write(name, b"x")
    folder.delete(["a/b/one", "four"])
    assert [file.name for file in folder.files()] == ["a/b/two", "a/three"]
    folder.delete(["a/b/two", "a/three"])
    assert folder.files() == []
    folder.write("a/b/one", b"y")
    assert folder.read("a/b/one") == b"y"


def test_a_write_that_fails_leaves_the_file_before(folder: Folder) -> None:
    folder.write("file", b"before")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - it is our own
        folder.write("file", fail)
    assert folder.read("file") == b"before"
    assert [file.name for file in folder.files()] == ["file"]


def test_a_task_takes_its_folder_to_another_process(folder: Folder) -> None:
    there = pickle.loads(pickle.dumps(folder / "inner"))
    there.write("file", b"x")
    assert folder.read("inner/file") == b"x"


# ------------------------------------------------------------------------------------------------- this machine


def test_files_that_are_being_written_are_not_listed(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    seen = []

    def put(file: object) -> None:
        file.write(b"abc")  # type: ignore[attr-defined]
        seen.extend([folder.files(), [path.name for path in (tmp_path / "a").iterdir()]])

    folder.write("a/file", put)
    assert seen == [[], [f"{ASIDE}{os.getpid()}-file"]]
    (tmp_path / "a" / f"{ASIDE}1-other").write_bytes(b"left by a killed process")
    assert [file.name for file in folder.files()] == ["a/file"]
    folder.sweep()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Folder, Path]:
    """A store with a link to a folder outside, whose files have names such as the store gives its own; and that one."""
    outside = tmp_path / "outside"
    for name in ("part-1.parquet", "receipt.json", f"{ASIDE}1-part-2.parquet", "below/receipt.json"):
        Folder.at(outside).write(name, b"of someone else")
    store = Folder.at(tmp_path / "store")
    store.write("split=train/date=2026-03-01/part-1.parquet", b"x")
    (tmp_path / "store/split=train/date=2026-03-02").symlink_to(outside)
    (tmp_path / "store/split=train/one.parquet").symlink_to(outside / "part-1.parquet")
    (tmp_path / "store/split=train/dangling.parquet").symlink_to(outside / "nowhere")
    (tmp_path / f"store/{ASIDE}9-one").symlink_to(outside / "part-1.parquet")
    return store, outside


def test_nothing_is_deleted_behind_a_symbolic_link(linked: tuple[Folder, Path]) -> None:
    store, outside = linked
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert len(before) == 4
    behind = [f"split=train/date=2026-03-02/{name}" for name in ("part-1.parquet", "receipt.json")]
    assert set(behind) < {file.name for file in store.files()}  # as raw logs may be read
    own = [file.name for file in store.files(through_links=False)]
    assert own == [
        "split=train/dangling.parquet",
        "split=train/date=2026-03-01/part-1.parquet",
        "split=train/one.parquet",
    ]
    store.sweep()
    assert not Path(store.path, f"{ASIDE}9-one").is_symlink()
    store.delete([*own, *behind])
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    assert [path.name for path in Path(store.path, "split=train").iterdir()] == ["date=2026-03-02"]


def test_deleting_takes_empty_folders_along(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "store")
    for name in ("a/b/c/one", "a/two"):
        folder.write(name, b"x")
    folder.delete(["a/b/c/one"])
    assert [path.name for path in (tmp_path / "store" / "a").iterdir()] == ["two"]
    folder.delete(["a/two"])
    assert list((tmp_path / "store").iterdir()) == []


def test_what_cannot_be_opened_or_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StrataError, match="nonsense://place: cannot be opened"):
        Folder.at("nonsense://place")
    (tmp_path / "file").touch()
    with pytest.raises(StrataError, match="cannot be written"):
        Folder.at(tmp_path / "file").write("below", b"x")


# ----------------------------------------------------------------------------------------- a build in the cloud


@pytest.fixture(scope="module")
def raw_log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    raw = tmp_path_factory.mktemp("log") / "raw"
    log = SimulationConfig(users=60, videos=40, new_videos=3, days=3, impressions=800, duplicate_rate=0.02)
    simulate_logs(log, load_spec(spec_path), raw)
    return raw


@pytest.fixture(scope="module")
def local_store(raw_log: Path, spec_path: Path) -> Folder:
    build_samples(spec_path, raw_log, raw_log.parent / "samples", Options(workers=1, partitions=2))
    return Folder.at(raw_log.parent / "samples")


def upload(raw: Path, to: Folder) -> None:
    for path in raw.rglob("*.parquet"):
        to.write(str(path.relative_to(raw)), path.read_bytes())


def content(store: Folder) -> dict[str, object]:
    """What a reader finds. Names of files tell apart versions of the raw logs: those of an upload are its own."""
    manifest = read_manifest(store)
    named = {file.path: file.sha256 for file in manifest.files}
    assert named == {name: hashlib.sha256(store.read(name)).hexdigest() for name in named}
    found = {file.name for file in store.files() if not file.name.startswith(".work/")}
    vocabularies = {vocabulary.path for vocabulary in manifest.learned.vocabularies.values()}
    assert {name for name in found if name.startswith(("split=", "vocabularies/"))} == named.keys() | vocabularies
    files = [(file.path.rsplit("-", 1)[0], file.rows, file.sha256) for file in manifest.files]
    whole = manifest.model_copy(update={"created": "", "raw_folder": "", "files": []})
    return {"files": files, "manifest": whole, "statistics": store.read("statistics.json")} | {
        name: store.read(name) for name in vocabularies
    }


@pytest.mark.slow
def test_a_build_from_s3_to_s3_is_the_local_one(
    s3: Place, raw_log: Path, local_store: Folder, spec_path: Path, environment: dict[str, str]
) -> None:
    raw, out = s3("raw"), s3("deep/er/samples")
    upload(raw_log, Folder.at(raw))
    words = ["--spec", spec_path, "--raw", raw, "--out", out, "--workers", 2, "--partitions", 2]
    access = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_samples.py", *map(str, words)],
        env=environment | access,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    store = Folder.at(out)
    assert content(store) == content(local_store)
    before = store.files()
    build_samples(spec_path, raw, out, Options(workers=1))
    anew = {file.name for file in store.files()} - {file.name for file in before}
    assert anew == set()
    assert content(store) == content(local_store)


def test_a_build_through_fsspec_is_the_local_one(
    raw_log: Path, local_store: Folder, spec_path: Path, tmp_path: Path
) -> None:
    raw, store = f"memory://{tmp_path.name}/raw", f"memory://{tmp_path.name}/samples"
    upload(raw_log, Folder.at(raw))
    build_samples(spec_path, raw, store, Options(workers=1, partitions=2))
    assert content(Folder.at(store)) == content(local_store)


def test_logs_that_are_not_there_are_one_line(s3: Place, spec_path: Path, tmp_path: Path) -> None:
    for place in (s3("nowhere"), "s3://no-such-bucket/raw?" + s3("").split("?")[1]):
        with pytest.raises(StrataError, match="no such folder"):
            build_samples(spec_path, place, tmp_path / "samples")


def test_an_address_nobody_answers_is_one_line(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    place = f"s3://{BUCKET}/raw?scheme=http&endpoint_override=127.0.0.1%3A1&region=us-east-1"
    with pytest.raises(StrataError, match=r"127.0.0.1|logs/raw"):
        build_samples(spec_path, place, tmp_path / "samples")
