# keyring_key_management.so for MariaDB. libssl and libcrypto are mariadbd's own; everything else is inside. Visible is what mariadbd
# looks for: its plugin symbols, and the pointer in which it puts its error log.
MARIADB_INCLUDE ?= /usr/include/mariadb/server
INCLUDES_MariaDBKeyringPlugin := -I$(CLIENTS)/CKeyringClient/include -I$(CLIENTS)/MariaDBKeyringPlugin \
  -isystem $(MARIADB_INCLUDE) -DMYSQL_DYNAMIC_PLUGIN
MARIADB_PLUGIN := $(BUILD)/keyring_key_management.so
MARIADB_SOURCES := $(sort $(wildcard $(CLIENTS)/MariaDBKeyringPlugin/*.c))
MARIADB_OBJECTS := $(MARIADB_SOURCES:$(CLIENTS)/%.c=$(BUILD)/%.o)
MARIADB_MAP := $(CLIENTS)/MariaDBKeyringPlugin/plugin.map

$(MARIADB_PLUGIN): $(MARIADB_OBJECTS) $(BUILD)/libkeyring.a $(MARIADB_MAP)
	$(CC) $(CFLAGS) -shared $(LDFLAGS) -Wl,--version-script=$(MARIADB_MAP) -o $@ $(MARIADB_OBJECTS) $(KEYRING_LINK)
ALL += $(MARIADB_PLUGIN)

.PHONY: install-mariadb-plugin
install-mariadb-plugin: $(MARIADB_PLUGIN)
	install -d $(DESTDIR)$(MARIADB_PLUGIN_DIR)
	install -m 0755 $< $(DESTDIR)$(MARIADB_PLUGIN_DIR)/
INSTALL += install-mariadb-plugin

# mariadbd's part as a program, for tests and sanitizers.
MARIADB_DRIVER := $(BUILD)/plugin-driver
$(MARIADB_DRIVER): $(TOP)/Tests/DatabaseTests/Programs/plugin-driver.c $(TOP)/Tests/DatabaseTests/Programs/driver.h
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -isystem $(MARIADB_INCLUDE) -DMYSQL_DYNAMIC_PLUGIN $(LDFLAGS) -o $@ $< -lpthread -ldl
.PHONY: mariadb-plugin-driver
mariadb-plugin-driver: $(MARIADB_DRIVER) $(MARIADB_PLUGIN)
