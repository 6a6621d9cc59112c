"""The raw tables that the simulator can write, and the check that a spec declares no others."""

from pathlib import PurePath

from pipeline.errors import StrataError
from pipeline.spec.spec import Spec

EVENT_LOGS = {
    "impression": {
        "impression_id": "int64",
        "user_id": "int64",
        "video_id": "int64",
        "page": "string",
        "position": "int64",
        "time_ms": "int64",
    },
    "stay": {"impression_id": "int64", "user_id": "int64", "time_ms": "int64", "dwell_ms": "int64"},
    "click": {"impression_id": "int64", "user_id": "int64", "time_ms": "int64"},
    "play": {"impression_id": "int64", "user_id": "int64", "time_ms": "int64", "play_ms": "int64"},
    "like": {"impression_id": "int64", "user_id": "int64", "time_ms": "int64"},
}
PROFILES = {
    "user": {"user_id": "int64", "age_group": "string", "city": "string", "device": "string"},
    "video": {
        "video_id": "int64",
        "author_id": "int64",
        "tags": "string",
        "duration_ms": "int64",
        "upload_ms": "int64",
    },
}
TRUTH = "truth"


def check_declared_tables(spec: Spec) -> None:
    """Raises StrataError if the spec declares a table, a column or a place that the simulator cannot write."""
    possible = EVENT_LOGS | PROFILES
    folders = {TRUTH}
    for name, table in spec.logs.tables().items():
        where = f"logs, table `{name}`"
        if name not in possible:
            raise StrataError("the simulator has no such table", where=where, fix=f"it has {', '.join(possible)}")
        for column, declared in table.columns.items():
            written = possible[name].get(column)
            if written is None:
                known = ", ".join(possible[name])
                raise StrataError(f"the simulator has no column `{column}`", where=where, fix=f"it has {known}")
            if written != declared:
                raise StrataError(f"`{column}` is declared {declared}", where=where, fix=f"it is written as {written}")
        plain = PurePath(table.files).name == table.files and not set("*?[") & set(table.files)
        if not plain or PurePath(table.files).suffix:
            raise StrataError(f"`files: {table.files}` is no folder", where=where, fix=f"write `files: {name}`")
        if table.files in folders:
            raise StrataError(
                f"the folder `{table.files}` is taken",
                where=where,
                fix=f"give each table its own, and leave `{TRUTH}` to the true probabilities",
            )
        folders.add(table.files)


def columns_of(spec: Spec, table: str) -> list[str]:
    """The columns that the spec declares. An id comes first, because the writer spoils the first column."""
    declared = spec.logs.tables()[table].columns
    return [column for column in (EVENT_LOGS | PROFILES)[table] if column in declared]
