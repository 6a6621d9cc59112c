"""Building stores, and what is in them."""

import hashlib
from pathlib import Path

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.store import replaced_files
from pipeline.simulation.config import SimulationConfig
from pipeline.storage import Folder

LOG = SimulationConfig(
    users=150,
    videos=80,
    new_videos=5,
    days=6,
    impressions=2000,
    late_rate=0.05,
    duplicate_rate=0.02,
    malformed_rate=0.02,
)


DATES = "split: {valid_from: 2026-03-04, test_from: 2026-03-05}"


Stamps = dict[str, tuple[int, int]]


def build(spec: Path, raw: Path, out: Path) -> Manifest:
    return build_samples(spec, raw, out, Options(workers=1))


def edited(text: str, *pairs: str) -> str:
    for before, after in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def content(store: Path) -> dict[str, object]:
    """All that a reader can find in a store, but for when it was made; checks what the manifest says of its files.

    Files that were replaced and stay for readers are left out.
    """
    manifest = load_manifest(store)
    sums = {file.path: file.sha256 for file in manifest.files}
    sums |= {vocabulary.path: vocabulary.sha256 for vocabulary in manifest.learned.vocabularies.values()}
    found = {str(p.relative_to(store)): p for p in store.rglob("*") if p.is_file() and ".work" not in p.parts}
    kept = {file.name for file in replaced_files(manifest, Folder.at(store))}
    digests = {n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in found.items() if n not in kept}
    assert sums.items() <= digests.items()
    extra = {name for name in digests.keys() - sums.keys() if not name.startswith("rejected/")}
    assert extra == {"manifest.json", "statistics.json"}
    del digests["manifest.json"]
    return digests | {"manifest": manifest.model_copy(update={"created": ""})}


def assert_as_from_scratch(store: Path, spec: Path, raw: Path) -> None:
    scratch = store.parent / "scratch"
    build(spec, raw, scratch)
    assert content(store) == content(scratch)


def stamps(store: Path, below: str) -> Stamps:
    """Which file lies there, and when it was written."""
    paths = [path for path in (store / below).rglob("*") if path.is_file()]
    return {str(p.relative_to(store)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def samples_by_day(store: Path) -> dict[str, Stamps]:
    days: dict[str, Stamps] = {}
    named = load_manifest(store).paths()
    for name, stamp in stamps(store, ".").items():
        if name.startswith("split=") and name in named:
            days.setdefault(name.split("date=")[1][:10], {})[name] = stamp
    return days


def arrived_after(raw: Path, day: str, *but_of: str) -> list[Path]:
    """The files that came after a day, but of some tables."""
    return [p for p in raw.glob("*/2026-*.parquet") if p.name[:10] > day and p.parent.name not in but_of]


def finished(store: Path, *stages: str) -> Stamps:
    """What tasks have left, of some stages or of all, and the samples."""
    left = [f".work/{stage}" for stage in stages] or [str(p.relative_to(store)) for p in (store / ".work").glob("*/")]
    return {name: stamp for place in left for name, stamp in stamps(store, place).items()}
