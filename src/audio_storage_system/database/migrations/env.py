"""Alembic's entry point: it runs the revisions on the connection that `migrate` hands over."""

from alembic import context

from audio_storage_system.database.tables import metadata_of_schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata_of_schema,
    transactional_ddl=True,
)
context.run_migrations()
