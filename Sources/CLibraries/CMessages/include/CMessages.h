// Made by Protos/generate: the messages of the wire and of the storage file.
#include "keyring/storage/v1/backup.pb-c.h"
#include "keyring/storage/v1/storage.pb-c.h"
#include "keyring/v1/admin.pb-c.h"
#include "keyring/v1/keyring.pb-c.h"
