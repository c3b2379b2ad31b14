"""What statements of shadow work may use in modes ``schema`` and ``table``: lists of what is known, by name.

Everything here changes no row, takes no lock another session sees, sends nothing, and reads no file.
What is missing is refused.
"""

from __future__ import annotations


def _words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


_ANYWHERE = (
    "count sum avg min max abs ceil ceiling floor round mod power pow sqrt exp ln log sign lower upper "
    "char_length character_length octet_length length ltrim rtrim lpad rpad left right replace repeat "
    "reverse concat concat_ws md5 ascii row_number rank dense_rank percent_rank cume_dist ntile lag lead "
    "first_value last_value nth_value stddev stddev_pop stddev_samp variance var_pop var_samp now version "
    "sin cos tan asin acos atan atan2 cot degrees radians pi bit_and bit_or bit_xor "
)
FUNCTIONS = {
    "postgresql": _words(
        _ANYWHERE,
        "trunc random cbrt div gcd lcm factorial scale width_bucket initcap btrim substr strpos translate "
        "split_part format sha224 sha256 sha384 sha512 encode decode to_char to_date to_number to_timestamp "
        "regexp_replace regexp_match regexp_matches regexp_split_to_table regexp_split_to_array regexp_count "
        "regexp_instr regexp_like regexp_substr starts_with chr quote_ident quote_literal quote_nullable "
        "bit_length to_hex get_byte set_byte get_bit set_bit string_agg array_agg json_agg jsonb_agg "
        "json_object_agg jsonb_object_agg bool_and bool_or every any_value corr covar_pop covar_samp "
        "regr_slope regr_intercept regr_count regr_r2 percentile_cont percentile_disc mode "
        "clock_timestamp statement_timestamp transaction_timestamp timeofday date_part date_trunc date_bin "
        "age make_date make_time make_timestamp make_timestamptz make_interval justify_days justify_hours "
        "justify_interval isfinite date timestamptz timezone current_setting current_schema current_schemas "
        "current_database current_catalog pg_backend_pid pg_is_in_recovery pg_sleep pg_typeof "
        "pg_postmaster_start_time pg_client_encoding inet_server_addr inet_client_addr "
        "unnest generate_series generate_subscripts array_length array_lower array_upper array_ndims "
        "array_dims array_to_string string_to_array string_to_table cardinality array_append array_prepend "
        "array_remove array_replace array_position array_positions array_cat array_fill trim_array "
        "json_build_object jsonb_build_object json_build_array jsonb_build_array to_json to_jsonb "
        "row_to_json array_to_json jsonb_set jsonb_set_lax jsonb_insert jsonb_pretty json_strip_nulls "
        "jsonb_strip_nulls json_array_elements jsonb_array_elements json_array_elements_text "
        "jsonb_array_elements_text json_each jsonb_each json_each_text jsonb_each_text json_object_keys "
        "jsonb_object_keys json_extract_path jsonb_extract_path json_extract_path_text "
        "jsonb_extract_path_text jsonb_path_query jsonb_path_query_array jsonb_path_query_first "
        "jsonb_path_exists jsonb_path_match json_typeof jsonb_typeof json_array_length jsonb_array_length "
        "json_to_record jsonb_to_record json_to_recordset jsonb_to_recordset "
        "to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd "
        "ts_headline setweight numnode querytree gen_random_uuid uuidv4 uuidv7 lastval host family masklen "
        "network broadcast lower_inc upper_inc lower_inf upper_inf isempty range_merge int4range int8range "
        "numrange tsrange tstzrange daterange num_nonnulls num_nulls hashtext "
        "set_config nextval currval setval pg_get_serial_sequence to_regclass to_regtype pg_relation_size "
        "pg_total_relation_size pg_table_size pg_size_pretty pg_column_size "
        "pg_get_expr pg_get_constraintdef pg_get_indexdef pg_get_userbyid pg_get_viewdef format_type "
        "obj_description col_description shobj_description pg_table_is_visible pg_type_is_visible "
        "pg_function_is_visible pg_encoding_to_char has_schema_privilege "
        # what only lets go of what this session itself could have
        "pg_advisory_unlock_all",
    ),
    "mariadb": _words(
        _ANYWHERE,
        "truncate rand greatest least ifnull nullif coalesce if isnull instr locate substring_index lcase "
        "ucase mid space strcmp format hex unhex conv bin oct crc32 sha sha1 sha2 to_base64 from_base64 "
        "trim field elt find_in_set quote soundex regexp_replace regexp_instr regexp_substr group_concat "
        "std json_arrayagg json_objectagg json_array json_object json_extract json_value json_query json_set "
        "json_insert json_replace json_remove json_contains json_contains_path json_keys json_length "
        "json_type json_valid json_unquote json_quote json_merge_patch json_merge_preserve json_search "
        "json_exists json_overlaps curdate curtime current_timestamp current_date current_time sysdate "
        "utc_timestamp utc_date utc_time localtime localtimestamp unix_timestamp from_unixtime date time "
        "datediff timediff timestampdiff timestampadd date_add date_sub adddate subdate addtime subtime "
        "date_format time_format str_to_date year quarter month week weekday weekofyear yearweek day "
        "dayofmonth dayofweek dayofyear dayname monthname hour minute second microsecond last_day makedate "
        "maketime to_days from_days to_seconds sec_to_time time_to_sec convert_tz timestamp extract "
        "last_insert_id row_count found_rows database schema user current_user session_user connection_id "
        "uuid substring substr position insert convert cast binary values value char charset collation "
        "median percentile_cont percentile_disc",
    ),
}
"""Functions that may be called; PostgreSQL's are called as ``pg_catalog.name``, whatever the search path."""

GRAMMAR = _words(
    "coalesce nullif greatest least cast extract trim position overlay substring normalize treat row "
    "grouping xmlelement exists collation current_user session_user"
)
"""PostgreSQL: looks like a call and is the grammar's own; ``substring`` and ``overlay`` when with FROM."""

OF_TABLES = _words(
    "nextval currval setval to_regclass pg_get_serial_sequence pg_relation_size pg_total_relation_size "
    "pg_table_size"
)
"""Functions whose first argument names a table or sequence, which must be written out."""

_QUERY = (
    "select values from where and or not in all exists on using as having order limit union intersect "
    "except distinct case when then else for returning between group with interval "
    "numeric decimal dec varchar char bit time timestamp float "
)
BEFORE_PARENTHESIS = {
    "postgresql": _words(
        _QUERY,
        "any some lateral array row only offset fetch window end both leading trailing symmetric character "
        "nchar national precision current_timestamp current_time localtime localtimestamp",
    ),
    "mariadb": _words(
        _QUERY, "div xor regexp rlike like binary varbinary signed unsigned datetime character"
    ),
}
"""Words that no function can have as its name without quotes."""

AFTER_VALUE = _words("like ilike similar is join escape set any some offset")
"""Words that stand before a parenthesis where a value or a table has just ended; elsewhere they are calls."""

IN_CONTEXT = {
    "by": _words("group order partition"),
    "conflict": _words("on"),
    "filter": _words(")"),
    "over": _words(")"),
    "sets": _words("grouping"),
    "rollup": _words("by ,"),
    "cube": _words("by ,"),
    "materialized": _words("as not"),
    "system": _words("tablesample"),
    "bernoulli": _words("tablesample"),
    "insert": _words("then"),
    "index": _words("use force ignore"),
    "key": _words("use force ignore"),
    "varying": _words("character bit"),
    "timestamptz": _words(":: as"),
    "timetz": _words(":: as"),
    "bpchar": _words(":: as"),
}
"""Words that stand before a parenthesis only after certain others; elsewhere they are calls."""

CATALOGS = _words(
    "pg_type pg_class pg_namespace pg_attribute pg_attrdef pg_index pg_constraint pg_description pg_enum "
    "pg_range pg_collation pg_database pg_roles pg_proc pg_depend pg_inherits pg_am pg_opclass pg_operator "
    "pg_sequence pg_sequences pg_tables pg_views pg_indexes pg_extension pg_settings pg_trigger pg_language "
    "pg_tablespace pg_partitioned_table pg_matviews pg_timezone_names pg_cast pg_aggregate"
)
"""PostgreSQL's catalogues that may be read."""

SETTINGS = {
    "postgresql": _words(
        "statement_timeout lock_timeout idle_in_transaction_session_timeout idle_session_timeout "
        "transaction_timeout application_name timezone datestyle intervalstyle client_min_messages "
        "extra_float_digits bytea_output jit work_mem synchronous_commit default_transaction_isolation "
        "default_transaction_read_only default_transaction_deferrable transaction_isolation "
        "transaction_read_only enable_seqscan enable_indexscan enable_bitmapscan enable_hashjoin "
        "enable_mergejoin enable_nestloop enable_sort plan_cache_mode random_page_cost "
        "max_parallel_workers_per_gather"
    ),
    "mariadb": _words(
        "autocommit sql_auto_is_null foreign_key_checks unique_checks time_zone wait_timeout "
        "innodb_lock_wait_timeout lock_wait_timeout max_statement_time net_read_timeout net_write_timeout "
        "group_concat_max_len sql_safe_updates tx_isolation transaction_isolation sql_notes"
    ),
}
"""What ``SET`` may change, for the session."""

SHOWN = _words(
    "variables status warnings errors collation engines session global count character charset plugins"
)
"""MariaDB: what ``SHOW`` may show."""

NODES = _words(
    "Select From Join Where Group Having Order Ordered Limit Offset Fetch Distinct Union Intersect Except "
    "Subquery Table TableAlias TableSample CTE With Values Tuple Paren Column Identifier Star Literal "
    "Boolean Null Alias Aliases Interval Cast TryCast DataType DataTypeParam ObjectIdentifier PseudoType "
    "Between In Not Lateral Unnest Window WindowSpec WithinGroup Filter Windows Lock Parameter Placeholder "
    "Var Insert Update Delete Merge Whens When Schema Returning OnConflict Case If Bracket Slice "
    "JSONPath JSONPathRoot JSONPathKey JSONPathSubscript Collate AtTimeZone Rollup Cube GroupingSets "
    "Distinct Hint IndexTableHint Introducer SetOperation IntervalSpan Kwarg PropertyEQ ForIn "
    "Any All JSON ColumnDef CurrentUser SessionUser IgnoreNulls RespectNulls Escape"
)
"""Kinds of nodes a parsed statement may have, besides operators and functions (which have lists above)."""
