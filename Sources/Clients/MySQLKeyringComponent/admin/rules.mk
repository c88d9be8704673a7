# component_keyring_service_admin.so for MySQL: SQL functions, a variable and a privilege. Its configuration is read by the code of the other component.
INCLUDES_MySQLKeyringComponent += -I$(CLIENTS)/MySQLKeyringComponent/admin
MYSQL_ADMIN := $(BUILD)/component_keyring_service_admin.so
MYSQL_ADMIN_SOURCES := $(sort $(wildcard $(CLIENTS)/MySQLKeyringComponent/admin/*.c))
MYSQL_ADMIN_OBJECTS := $(MYSQL_ADMIN_SOURCES:$(CLIENTS)/%.c=$(BUILD)/%.o) \
  $(patsubst %,$(BUILD)/MySQLKeyringComponent/%.o,configuration settings jansson_stdin)

$(MYSQL_ADMIN): $(MYSQL_ADMIN_OBJECTS) $(BUILD)/libkeyring.a $(MYSQL_MAP)
	$(CC) $(CFLAGS) -shared $(LDFLAGS) -Wl,--version-script=$(MYSQL_MAP) -o $@ $(MYSQL_ADMIN_OBJECTS) \
	  $(KEYRING_LINK) -Wl,-Bstatic -ljansson -Wl,-Bdynamic
ALL += $(MYSQL_ADMIN)

.PHONY: install-mysql-admin mysql-admin-abi-check
install-mysql-admin: $(MYSQL_ADMIN)
	install -d $(DESTDIR)$(MYSQL_PLUGIN_DIR)
	install -m 0755 $< $(DESTDIR)$(MYSQL_PLUGIN_DIR)/
INSTALL += install-mysql-admin

# MySQL's headers of these services are C++.
mysql-abi-check: mysql-admin-abi-check
mysql-admin-abi-check:
	@test -n "$(MYSQL_INCLUDE)" || { echo "MYSQL_INCLUDE=... is missing" >&2; exit 2; }
	$(CXX) -std=c++20 -Wall -Wextra -Werror -fsyntax-only -isystem $(MYSQL_INCLUDE) -isystem $(MYSQL_INCLUDE)/../builddir/include \
	  $(CLIENTS)/MySQLKeyringComponent/abi/admin_abi_check.cc
