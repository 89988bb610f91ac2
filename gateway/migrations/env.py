"""How alembic reaches the database: over the connection the gateway hands it on start."""

from alembic import context

from gateway.database import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
