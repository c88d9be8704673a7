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

# For programs: libkeyring.so.1, which exports what the headers declare. protobuf-c is inside it, and hidden, as in the database plugins: one library to
# install, and no second copy's symbols in the way of a program that has its own.
KEYRING_SO := $(BUILD)/libkeyring.so.1.0.0
KEYRING_MAP := $(CLIENTS)/CKeyringClient/libkeyring.map
$(KEYRING_SO): $(KEYRING_OBJECTS) $(KEYRING_MAP)
	$(CC) $(CFLAGS) -shared $(LDFLAGS) -Wl,-soname,libkeyring.so.1 -Wl,--version-script=$(KEYRING_MAP) -o $@ $(KEYRING_OBJECTS) \
	  -lssl -lcrypto -Wl,-Bstatic -lprotobuf-c -Wl,-Bdynamic -lpthread
	ln -sf libkeyring.so.1.0.0 $(BUILD)/libkeyring.so.1
	ln -sf libkeyring.so.1 $(BUILD)/libkeyring.so
ALL += $(KEYRING_SO)

.PHONY: install-libkeyring
install-libkeyring: $(KEYRING_SO) $(BUILD)/libkeyring.a
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 0644 $(CLIENTS)/CKeyringClient/include/keyring.h $(CLIENTS)/CKeyringClient/include/keyring_admin.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 0755 $(KEYRING_SO) $(DESTDIR)$(LIBDIR)/
	install -m 0644 $(BUILD)/libkeyring.a $(DESTDIR)$(LIBDIR)/
	ln -sf libkeyring.so.1.0.0 $(DESTDIR)$(LIBDIR)/libkeyring.so.1
	ln -sf libkeyring.so.1 $(DESTDIR)$(LIBDIR)/libkeyring.so
	sed 's,@PREFIX@,$(PREFIX),; s,@LIBDIR@,$(LIBDIR),; s,@INCLUDEDIR@,$(INCLUDEDIR),' $(CLIENTS)/CKeyringClient/keyring.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/keyring.pc
INSTALL += install-libkeyring
