// SHA-256 (FIPS 180-4).
#ifndef ASSAY_SHA256_H_
#define ASSAY_SHA256_H_

#include <stddef.h>

namespace assay {

// The digest of some bytes: 64 hexadecimal digits and a zero.
void sha256(const char *data, size_t size, char *digest);

}  // namespace assay

#endif
