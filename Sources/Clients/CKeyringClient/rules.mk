# libkeyring: libkeyring.so.1 and libkeyring.a, with nothing inside but this folder and the messages of the wire.
KEYRING_MESSAGES := $(TOP)/Sources/CLibraries/CMessages
INCLUDES_CKeyringClient := -I$(CLIENTS)/CKeyringClient/include -I$(KEYRING_MESSAGES)/include
KEYRING_SOURCES := $(sort $(wildcard $(CLIENTS)/CKeyringClient/*.c))
KEYRING_OBJECTS := $(KEYRING_SOURCES:$(CLIENTS)/%.c=$(BUILD)/%.o) $(BUILD)/messages/keyring.pb-c.o $(BUILD)/messages/admin.pb-c.o
# What a shared object that has libkeyring inside links: protobuf-c statically, so that nothing must be installed beside a database server.
KEYRING_LINK := $(BUILD)/libkeyring.a -lssl -lcrypto -Wl,-Bstatic -lprotobuf-c -Wl,-Bdynamic -lpthread

$(BUILD)/messages/%.pb-c.o: $(KEYRING_MESSAGES)/generated/keyring/v1/%.pb-c.c
	@mkdir -p $(dir $@)
	$(CC) $(filter-out -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes,$(CFLAGS)) -I$(KEYRING_MESSAGES)/include -MMD -MP -c $< -o $@

$(BUILD)/libkeyring.a: $(KEYRING_OBJECTS)
	rm -f $@
	$(AR) rcs $@ $^
ALL += $(BUILD)/libkeyring.a
