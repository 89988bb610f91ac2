"""How many transactions signed elsewhere a user has under way."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_HANDED_IN = sa.text("kind = 'raw' AND status IN ('queued', 'submitted')")


def upgrade() -> None:
    op.create_index("transfers_handed_in", "transfers", ["user_id"], sqlite_where=_HANDED_IN, postgresql_where=_HANDED_IN)
