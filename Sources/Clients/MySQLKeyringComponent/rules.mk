# component_keyring_service.so for MySQL. libssl and libcrypto are mysqld's own; everything else is inside, and one symbol visible.
comma := ,
INCLUDES_MySQLKeyringComponent := -I$(CLIENTS)/CKeyringClient/include -I$(CLIENTS)/MySQLKeyringComponent/abi -I$(CLIENTS)/MySQLKeyringComponent
MYSQL_COMPONENT := $(BUILD)/component_keyring_service.so
MYSQL_SOURCES := $(sort $(wildcard $(CLIENTS)/MySQLKeyringComponent/*.c))
MYSQL_OBJECTS := $(MYSQL_SOURCES:$(CLIENTS)/%.c=$(BUILD)/%.o)
# What is left undefined is found here, not when a database server starts. (A sanitizer leaves its own calls undefined.)
MYSQL_DEFS := $(if $(SANITIZE),,-Wl$(comma)-z$(comma)defs)
MYSQL_MAP := $(CLIENTS)/MySQLKeyringComponent/component.map

$(MYSQL_COMPONENT): $(MYSQL_OBJECTS) $(BUILD)/libkeyring.a $(MYSQL_MAP)
	$(CC) $(CFLAGS) -shared $(LDFLAGS) $(MYSQL_DEFS) -Wl,--version-script=$(MYSQL_MAP) -o $@ $(MYSQL_OBJECTS) \
	  $(KEYRING_LINK) -Wl,-Bstatic -ljansson -Wl,-Bdynamic
ALL += $(MYSQL_COMPONENT)

.PHONY: install-mysql-component mysql-abi-check
install-mysql-component: $(MYSQL_COMPONENT)
	install -d $(DESTDIR)$(MYSQL_PLUGIN_DIR)
	install -m 0755 $< $(DESTDIR)$(MYSQL_PLUGIN_DIR)/
INSTALL += install-mysql-component

# Compares our headers with MySQL's own: MYSQL_INCLUDE is the folder that has mysql/components (`Tests/install-mysql --headers` prints one).
mysql-abi-check:
	@test -n "$(MYSQL_INCLUDE)" || { echo "MYSQL_INCLUDE=... is missing" >&2; exit 2; }
	$(CC) -std=c11 -Wall -Wextra -Werror -Wno-strict-prototypes -fsyntax-only -isystem $(MYSQL_INCLUDE) \
	  $(CLIENTS)/MySQLKeyringComponent/abi/abi_check.c
	@echo "the ABI headers agree with $(MYSQL_INCLUDE)"

# mysqld's part as a program, for tests and sanitizers.
MYSQL_DRIVER := $(BUILD)/component-driver
$(MYSQL_DRIVER): $(TOP)/Tests/DatabaseTests/Programs/component-driver.c $(TOP)/Tests/DatabaseTests/Programs/driver.h $(wildcard $(CLIENTS)/MySQLKeyringComponent/abi/*.h)
	@mkdir -p $(dir $@)
	$(CC) $(CFLAGS) -I$(CLIENTS)/MySQLKeyringComponent/abi $(LDFLAGS) -o $@ $< -lpthread -ldl
.PHONY: mysql-component-driver
mysql-component-driver: $(MYSQL_DRIVER) $(MYSQL_COMPONENT)

-include $(CLIENTS)/MySQLKeyringComponent/admin/rules.mk
