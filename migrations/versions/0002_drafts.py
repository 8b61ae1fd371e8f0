"""Of a generation: how many tokens were guessed, and how many of them came true.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Empty in the rows that are there."""
    for name in ("n_drafted", "n_accepted"):
        op.add_column("generation_run", sa.Column(name, sa.BigInteger(), nullable=True))
