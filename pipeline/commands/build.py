"""Builds labelled samples from raw logs, or brings a sample store up to date with them."""

from pathlib import Path
from typing import Literal, get_args

from pipeline.audit.audit import audit as audit_store
from pipeline.engines import EngineName
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName
from pipeline.samples.build import build_samples, prepare
from pipeline.samples.division import Options
from pipeline.samples.explain import explain_build
from pipeline.samples.store import replaced_files
from pipeline.statistics import load_statistics
from pipeline.storage import Folder

EXAMPLE = "--spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples"


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
    """Builds labelled samples from raw logs.

    It reads the spec and the raw files, and makes a sample store: Parquet by split and day, `vocabularies/`,
    `rejected/`, `data.html`, and `manifest.json`, which says what is in them.

    The same command goes on after a crash, adds days that came since, and takes in a changed spec. It keeps the work
    that is still right. Until a build ends, readers see the store as it was before.

    Args:
        spec: The spec (YAML): raw schema, features, scenes and objectives.
        raw: The folder of the raw logs: a path, or an address such as s3://bucket/logs.
        out: The folder of the store: a new one, or that of an earlier build. Kept work lies there in .work.
        engine: Where tasks run: local is this machine; ray is a Ray cluster, or Ray on this machine.
        ray_address: The cluster, such as ray://head:10001. By default Ray starts on this machine.
        workers: Processes at a time. By default one more than there are cores, or one for a small log.
        memory: Memory that all processes together aim to stay under, in GB.
        partitions: Groups of users, built one by one. Samples do not depend on them. By default as --memory asks for.
        on_bad_file: A damaged, incomplete or changing raw file ends the build (fail), or is left out (quarantine).
        explain: Print the plan of columns, windows and partitions, and what would be redone, and stop.
        audit: Samples to recompute from the raw logs, slowly and plainly, and to compare with the finished
            store. Fails also if a feature alone tells a label.
    """
    if audit < 0:
        raise StrataError(f"found {audit}", where="--audit", fix="give a number of samples")
    if audit and not Folder.at(out).is_local:
        fix = "copy the store to this machine, or leave --audit out"
        raise StrataError(f"cannot audit {out}, which is not on this machine", where="--audit", fix=fix)
    options = Options(engine, ray_address, workers, memory, partitions, quarantine=on_bad_file == "quarantine")
    if explain:
        print(explain_build(*prepare(spec, raw, out, options), options, Folder.at(out)))
        return
    manifest = build_samples(spec, raw, out, options)
    _print_store(manifest, out)
    if replaced := replaced_files(manifest, Folder.at(out)):
        size = sum(file.size for file in replaced) / 1e6
        print(
            f"{len(replaced):,} files ({size:,.1f} MB) of the store before stay for its readers until the next build"
            " that replaces files"
        )
    if Folder.at(out).is_local:
        # Not at the top: worker processes import this file, and matplotlib takes a second to import.
        from pipeline.data_report.findings import require_no_leak
        from pipeline.data_report.report import DATA_REPORT, write_data_report

        findings = write_data_report(Path(out), manifest, load_statistics(Path(out)))
        print(f"{out}/{DATA_REPORT}: {len(findings)} warnings" if findings else f"{out}/{DATA_REPORT}: no warnings")
        if audit:
            found = audit_store(Path(out), raw, audit)
            found.require_clean(Path(out))
            require_no_leak(findings, Path(out))
            print(f"audit: {found.values:,} values of {found.samples:,} samples are what the raw logs say")


def _print_store(manifest: Manifest, out: str) -> None:
    splits = [f"{split} {manifest.rows(split):,} of {manifest.period(split)}" for split in get_args(SplitName)]
    print(f"{out}: {sum(file.rows for file in manifest.files):,} samples ({'; '.join(splits)})")
    for bad in manifest.quarantine:
        print(f"in quarantine: {bad.file}: {bad.reason}")
