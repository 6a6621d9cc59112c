"""Builds labelled samples from raw logs, or brings a sample store up to date with them.

python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pathlib import Path
from typing import Literal, get_args

from pipeline.audit.audit import audit as audit_store
from pipeline.engines import EngineName
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName
from pipeline.samples.build import build_samples, prepare
from pipeline.samples.explain import explain as in_words
from pipeline.samples.plan import Options
from pipeline.samples.store import replaced_files
from pipeline.statistics import load_statistics
from pipeline.storage import Folder


def main(
    spec: Path,
    raw: str,
    out: str,
    engine: EngineName = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    memory: float = 2.0,
    partitions: int | None = None,
    on_bad_file: Literal["fail", "quarantine"] = "fail",
    explain: bool = False,
    audit: int = 0,
) -> None:
    """Build labelled samples from raw logs: Parquet by split and day, with a manifest that says what is in them.

    Run it again with the same folders to go on after a crash, to add the days that came since, or after a change of the
    spec: what is finished and still right is kept. Readers see the store before until the new one is whole.

    Args:
        spec: The spec: raw schema, features, scenes and objectives (YAML).
        raw: The folder that holds the raw logs: a path, or an address such as s3://bucket/logs.
        out: The folder of the store: a new one, or one that an earlier build made. It also holds the work that is kept
            for the next build, in .work.
        engine: Where the work is done: `local` is this machine, `ray` a Ray cluster, or Ray on this machine.
        ray_address: The cluster, such as ray://head:10001; without it Ray is started on this machine.
        workers: Processes at a time; by default one more than there are cores, or one for a small log.
        memory: What all processes together aim to stay under, in GB.
        partitions: Groups of users, each built on its own; by default as many as the first build had, or else as
            `memory` asks for. The samples and their order are the same for any number.
        on_bad_file: A raw file that is damaged, incomplete or changing ends the build, or is left out and named in the
            manifest.
        explain: Print the plan of columns, windows and partitions, and do nothing.
        audit: Recompute this many random samples of the finished store from the raw logs, slowly and plainly, and
            compare.
    """
    if audit < 0 or (audit and not Folder.at(out).is_local):
        fix = "give a number of samples; the store must lie on this machine"
        raise StrataError(f"cannot audit {audit} samples of {out}", where="--audit", fix=fix)
    options = Options(engine, ray_address, workers, memory, partitions, quarantine=on_bad_file == "quarantine")
    if explain:
        print(in_words(*prepare(spec, raw, out, options), options, Folder.at(out)))
        return
    manifest = build_samples(spec, raw, out, options)
    _say(manifest, out)
    if replaced := replaced_files(manifest, Folder.at(out)):
        size = sum(file.size for file in replaced) / 1e6
        print(
            f"{len(replaced):,} files ({size:,.1f} MB) of the store before stay for its readers until the next build"
            " that replaces files"
        )
    if Folder.at(out).is_local:
        # Not at the top: worker processes import this file, and what draws plots takes a second to import.
        from pipeline.data_report.report import DATA_REPORT, write_data_report

        findings = write_data_report(Path(out), manifest, load_statistics(Path(out)))
        print(f"{out}/{DATA_REPORT}: {len(findings)} warnings" if findings else f"{out}/{DATA_REPORT}: no warnings")
    if audit:
        found = audit_store(Path(out), raw, audit)
        found.require_clean(Path(out))
        print(f"audit: {found.values:,} values of {found.samples:,} samples are what the raw logs say")


def _say(manifest: Manifest, out: str) -> None:
    splits = [f"{split} {manifest.rows(split):,} of {manifest.period(split)}" for split in get_args(SplitName)]
    print(f"{out}: {sum(file.rows for file in manifest.files):,} samples ({'; '.join(splits)})")
    for bad in manifest.quarantine:
        print(f"in quarantine: {bad.file}: {bad.reason}")
