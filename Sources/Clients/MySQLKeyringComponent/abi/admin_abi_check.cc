/* SPDX-License-Identifier: MIT */
/* Compares mysql_admin_abi.h with MySQL's own headers, which are C++ here: size and place of every member of every service that
 * the second component asks for. Compiled by `make -C Sources/Clients mysql-abi-check MYSQL_INCLUDE=...` only. */
#include <cstdarg>
#include <cstddef>

#include <mysql/components/service.h>
#include <mysql/components/services/component_sys_var_service.h>
#include <mysql/components/services/dynamic_privilege.h>
#include <mysql/components/services/mysql_current_thread_reader.h>
#include <mysql/components/services/mysql_runtime_error.h>
#include <mysql/components/services/mysql_runtime_warning.h>
#include <mysql/components/services/mysql_string.h>
#include <mysql/components/services/mysql_system_variable.h>
#include <mysql/components/services/mysql_thd_attributes.h>
#include <mysql/components/services/security_context.h>
#include <mysql/components/services/udf_metadata.h>
#include <mysql/components/services/udf_registration.h>
#include <mysql/components/services/bits/system_variables_bits.h>
#include <mysql/mysql_lex_string.h>
#include <mysql/udf_registration_types.h>

#include "mysql_admin_abi.h"

#define SERVICE(name) SERVICE_TYPE_NO_CONST(name)
#define SAME_SIZE(theirs, ours) static_assert(sizeof(theirs) == sizeof(ours), "size of " #ours)
#define SAME_PLACE(theirs, their_member, ours, member)                                                             \
  static_assert(offsetof(theirs, their_member) == offsetof(ours, member) &&                                        \
                    sizeof(((theirs *)nullptr)->their_member) == sizeof(((ours *)nullptr)->member),                \
                "place of " #ours "." #member)

SAME_SIZE(UDF_ARGS, mysql_abi_function_arguments);
SAME_PLACE(UDF_ARGS, arg_count, mysql_abi_function_arguments, count);
SAME_PLACE(UDF_ARGS, arg_type, mysql_abi_function_arguments, types);
SAME_PLACE(UDF_ARGS, args, mysql_abi_function_arguments, values);
SAME_PLACE(UDF_ARGS, lengths, mysql_abi_function_arguments, lengths);
SAME_PLACE(UDF_ARGS, maybe_null, mysql_abi_function_arguments, maybe_null);
SAME_PLACE(UDF_ARGS, attributes, mysql_abi_function_arguments, attributes);
SAME_PLACE(UDF_ARGS, attribute_lengths, mysql_abi_function_arguments, attribute_lengths);
SAME_PLACE(UDF_ARGS, extension, mysql_abi_function_arguments, extension);

SAME_SIZE(UDF_INIT, mysql_abi_function_use);
SAME_PLACE(UDF_INIT, maybe_null, mysql_abi_function_use, maybe_null);
SAME_PLACE(UDF_INIT, decimals, mysql_abi_function_use, decimals);
SAME_PLACE(UDF_INIT, max_length, mysql_abi_function_use, max_length);
SAME_PLACE(UDF_INIT, ptr, mysql_abi_function_use, memory);
SAME_PLACE(UDF_INIT, const_item, mysql_abi_function_use, is_constant);
SAME_PLACE(UDF_INIT, extension, mysql_abi_function_use, extension);
static_assert(int(STRING_RESULT) == int(MYSQL_ABI_STRING_RESULT) && int(INT_RESULT) == int(MYSQL_ABI_INTEGER_RESULT),
              "results of functions");

SAME_SIZE(SERVICE(udf_registration), mysql_abi_functions);
SAME_PLACE(SERVICE(udf_registration), udf_register, mysql_abi_functions, add);
SAME_PLACE(SERVICE(udf_registration), udf_unregister, mysql_abi_functions, remove);

SAME_SIZE(SERVICE(mysql_udf_metadata), mysql_abi_function_metadata);
SAME_PLACE(SERVICE(mysql_udf_metadata), argument_get, mysql_abi_function_metadata, argument_get);
SAME_PLACE(SERVICE(mysql_udf_metadata), result_get, mysql_abi_function_metadata, result_get);
SAME_PLACE(SERVICE(mysql_udf_metadata), argument_set, mysql_abi_function_metadata, argument_set);
SAME_PLACE(SERVICE(mysql_udf_metadata), result_set, mysql_abi_function_metadata, result_set);

SAME_SIZE(SERVICE(component_sys_variable_register), mysql_abi_variables);
SAME_PLACE(SERVICE(component_sys_variable_register), register_variable, mysql_abi_variables, add);
/* The other member is deprecated, and not used: the size says that there is one. */
SAME_SIZE(SERVICE(component_sys_variable_unregister), mysql_abi_variables_removal);
SAME_PLACE(SERVICE(component_sys_variable_unregister), unregister_variable, mysql_abi_variables_removal, remove);
SAME_SIZE(SERVICE(mysql_system_variable_reader), mysql_abi_variable_reader);
SAME_PLACE(SERVICE(mysql_system_variable_reader), get, mysql_abi_variable_reader, get);
static_assert(PLUGIN_VAR_STR == int(MYSQL_ABI_VARIABLE_STRING) && PLUGIN_VAR_NODEFAULT == int(MYSQL_ABI_VARIABLE_NO_DEFAULT),
              "flags of variables");

SAME_SIZE(st_mysql_value, mysql_abi_value);
SAME_PLACE(st_mysql_value, value_type, mysql_abi_value, kind);
SAME_PLACE(st_mysql_value, val_str, mysql_abi_value, get_string);
SAME_PLACE(st_mysql_value, val_real, mysql_abi_value, get_real);
SAME_PLACE(st_mysql_value, val_int, mysql_abi_value, get_integer);
SAME_PLACE(st_mysql_value, is_unsigned, mysql_abi_value, is_unsigned);

SAME_SIZE(SERVICE(mysql_current_thread_reader), mysql_abi_current_session);
SAME_PLACE(SERVICE(mysql_current_thread_reader), get, mysql_abi_current_session, get);
SAME_SIZE(SERVICE(mysql_thd_attributes), mysql_abi_session_attributes);
SAME_PLACE(SERVICE(mysql_thd_attributes), get, mysql_abi_session_attributes, get);
SAME_PLACE(SERVICE(mysql_thd_attributes), set, mysql_abi_session_attributes, set);
SAME_SIZE(SERVICE(mysql_thd_security_context), mysql_abi_session_security);
SAME_PLACE(SERVICE(mysql_thd_security_context), get, mysql_abi_session_security, get);
SAME_PLACE(SERVICE(mysql_thd_security_context), set, mysql_abi_session_security, set);
SAME_SIZE(MYSQL_LEX_CSTRING, mysql_abi_text);
SAME_PLACE(MYSQL_LEX_CSTRING, str, mysql_abi_text, bytes);
SAME_PLACE(MYSQL_LEX_CSTRING, length, mysql_abi_text, length);
SAME_SIZE(SERVICE(mysql_security_context_options), mysql_abi_security_options);
SAME_PLACE(SERVICE(mysql_security_context_options), get, mysql_abi_security_options, get);
SAME_PLACE(SERVICE(mysql_security_context_options), set, mysql_abi_security_options, set);
SAME_SIZE(SERVICE(dynamic_privilege_register), mysql_abi_privileges);
SAME_PLACE(SERVICE(dynamic_privilege_register), register_privilege, mysql_abi_privileges, add);
SAME_PLACE(SERVICE(dynamic_privilege_register), unregister_privilege, mysql_abi_privileges, remove);
SAME_SIZE(SERVICE(global_grants_check), mysql_abi_grants);
SAME_PLACE(SERVICE(global_grants_check), has_global_grant, mysql_abi_grants, has);

SAME_SIZE(SERVICE(mysql_runtime_error), mysql_abi_error);
SAME_PLACE(SERVICE(mysql_runtime_error), emit, mysql_abi_error, emit);
SAME_SIZE(SERVICE(mysql_runtime_warning), mysql_abi_warning);
SAME_SIZE(SERVICE(mysql_string_factory), mysql_abi_string_factory);
SAME_PLACE(SERVICE(mysql_string_factory), create, mysql_abi_string_factory, create);
SAME_PLACE(SERVICE(mysql_string_factory), destroy, mysql_abi_string_factory, destroy);
SAME_SIZE(SERVICE(mysql_string_converter), mysql_abi_string_converter);
SAME_PLACE(SERVICE(mysql_string_converter), convert_from_buffer, mysql_abi_string_converter, from_buffer);
SAME_PLACE(SERVICE(mysql_string_converter), convert_to_buffer, mysql_abi_string_converter, to_buffer);
