"""${message}.

Revision ID: ${up_revision}
Revises: ${down_revision or ""}

Declare here what you touch; never import the tables, they will have moved on. On SQLite change a
table with ``op.batch_alter_table``. There is no way down: the file was copied before the upgrade.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
