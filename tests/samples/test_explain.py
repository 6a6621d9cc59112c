"""What `--explain` says of a changed spec is what a build then does, for every single value that a spec can hold."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.samples.build import build_samples, prepare
from pipeline.samples.division import Options
from pipeline.samples.explain import explain_build, redone
from pipeline.spec.file import load_spec, parse_spec
from pipeline.spec.parts import AT_THE_END, BY_DAYS, NO_STAGE, STAGES, changed_parts, samples_fingerprint, stages_after
from pipeline.storage import Folder
from tests.samples.every_key import FIXED, SPEC, edit_of, edited, leaves, write_log

ONE_WORKER = Options(workers=1, partitions=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("every_key")
    write_log(folder / "raw")
    (folder / "spec.yaml").write_text(SPEC)
    build_samples(folder / "spec.yaml", folder / "raw", folder / "samples", ONE_WORKER)
    return folder


def receipts(store: Path, stage: str) -> set[str]:
    return {str(path.relative_to(store)) for path in (store / ".work" / stage).rglob("receipt.json")}


def every_leaf() -> dict[str, Any]:
    from ruamel.yaml import YAML

    spec = parse_spec(YAML(typ="safe", pure=True).load(SPEC), "the spec of this test")
    return {key: value for key, value in leaves(spec.model_dump(mode="json")) if key not in FIXED}


# One of each kind; the others are slow in their sum.
AT_ONCE = (
    *("name", "logs.impression.video", "logs.impression.id", "logs.events.watch.within_s", "logs.day"),
    *("logs.profiles.channel.valid_from", "split.test_from", "columns.hour", "counters.days"),
    *("tables.user.dim", "tables.user.rows", "features.seen.last", "objectives.watch.label", "objectives.watch.kind"),
    *("scenes.cheap.weights.watch", "filter"),
)


@pytest.mark.parametrize(
    "key", [key if key in AT_ONCE else pytest.param(key, marks=pytest.mark.slow) for key in every_leaf()]
)
def test_a_build_does_what_explain_says_of_any_changed_value(key: str, built: Path, tmp_path: Path) -> None:
    old = load_spec(built / "spec.yaml")
    edit = edit_of(key, every_leaf()[key])
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(edited(old, edit)))
    new, store = load_spec(path), shutil.copytree(built / "samples", tmp_path / "samples")
    found = changed_parts(old, new)
    words = " ".join(
        explain_build(*prepare(path, built / "raw", store, ONE_WORKER), ONE_WORKER, Folder.at(store)).split()
    )
    named = [name for names in found.values() for name in names]
    assert any(key == name or key.startswith(f"{name}.") or name in edit for name in named), found
    assert all(f"{redone(stage)} {', '.join(names)}" in words for stage, names in found.items())

    before = {stage.folder: receipts(store, stage.folder) for stage in STAGES}
    build_samples(path, built / "raw", store, ONE_WORKER)
    done_again = {folder for folder, earlier in before.items() if receipts(store, folder) - earlier}
    first = [stage for stage in found if stage not in (BY_DAYS, AT_THE_END, NO_STAGE)]
    assert done_again >= set(first[:1])
    promised = {later.folder for stage in first for later in stages_after(stage)}
    promised |= {"learned", "encoded"} if BY_DAYS in found else set()
    assert done_again <= promised
    same_samples = found.keys() == {NO_STAGE}
    assert (samples_fingerprint(new) == samples_fingerprint(old)) == same_samples
