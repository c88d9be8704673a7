// libcurl as the module HTTPTransport sees it. curl_easy_setopt and curl_multi_setopt are variadic, which Swift cannot call.
#ifndef KEYRING_CCURL_H
#define KEYRING_CCURL_H

#include <curl/curl.h>

#endif
