"""SQL drivers in attached services: one file per driver, all on `perflab.shadow.sql.session`.

=================  ================================================================================
session            which side a connection belongs to, and whether the running code may use it
pools              twins of connection pools: SQLAlchemy's, psycopg_pool's, and asyncpg's (asyncpg_pool)
claims             what ordinary work wrote, for the audit
statement          what one statement does, in a few words
libpq              where a conninfo leads: shared by the drivers that stand on libpq
psycopg3, asyncpg  the drivers
internals          whether a library has what its hook stands on
=================  ================================================================================
"""
