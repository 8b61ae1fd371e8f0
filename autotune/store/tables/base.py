"""What all tables share: names of constraints, and what a Python type is in SQL."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    Enum,
    Integer,
    MetaData,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator

from autotune.domain.prediction import Evidence, Hardware, Target
from autotune.domain.run import Purpose, Reason
from autotune.domain.stored import RunState
from autotune.domain.study import StudyState


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. Aware values go in and come out; a naive one raises ValueError.

    SQLite keeps ``2026-11-01 12:00:00.000000``: text that sorts by time and that its own date
    functions read as UTC.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """In UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} is naive: which time zone is it in?")
        return value.astimezone(UTC)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    r"""Text from outside: engine logs, file names, model names.

    What no database encodes (bytes of a file name that are not UTF-8 reach Python as lone
    surrogates) is kept as a ``\udcff`` escape, because a run must not be lost to its message.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(
        self,
        value: str | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> str | None:
        """Encodable."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode()


Key = Annotated[int, mapped_column(Integer, primary_key=True)]
Name = Annotated[str, mapped_column(PlainText, primary_key=True)]


def closed(kind: type[enum.Enum], name: str) -> Enum:
    """A text column that takes the values of an enumeration and nothing else."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def not_negative(*columns: str) -> CheckConstraint:
    """NULL passes: an unknown amount is not a negative one."""
    return CheckConstraint(" AND ".join(f"{name} >= 0" for name in columns), name="not_negative")


class Base(DeclarativeBase):
    """The root of every table."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        int: BigInteger(),
        float: Double(),
        str: PlainText(),
        datetime: Instant(),
        Evidence: closed(Evidence, "evidence"),
        Hardware: closed(Hardware, "hardware"),
        Purpose: closed(Purpose, "purpose"),
        Reason: closed(Reason, "reason"),
        RunState: closed(RunState, "state"),
        StudyState: closed(StudyState, "state"),
        Target: closed(Target, "target"),
    }
