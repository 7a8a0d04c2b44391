#!/bin/sh
# Installs the C client: headers, libraries, pkg-config file.
#
#   client/c/install.sh BUILT      BUILT is where cargo put libadjoin.so, such as target/release
#
# From the environment: PREFIX (/usr/local), LIBDIR (PREFIX/lib), INCLUDEDIR (PREFIX/include), and
# DESTDIR, which is put before them for packages.
set -eu

built=$1
here=$(dirname "$0")
prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
destdir=${DESTDIR:-}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../../Cargo.toml")
abi=$(sed -n 's/^#define ADJOIN_ABI_VERSION //p' "$here/include/adjoin.h")
# What the Rust standard library needs of the system, for static linking.
private="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

install -d "$destdir$libdir/pkgconfig" "$destdir$includedir"
install -m 644 "$here/include/adjoin.h" "$here/include/adjoin.hpp" "$destdir$includedir"
install -m 755 "$built/libadjoin.so" "$destdir$libdir/libadjoin.so.$version"
ln -sf "libadjoin.so.$version" "$destdir$libdir/libadjoin.so.$abi"
ln -sf "libadjoin.so.$abi" "$destdir$libdir/libadjoin.so"
install -m 644 "$built/libadjoin.a" "$destdir$libdir"
sed -e "s|@prefix@|$prefix|" -e "s|@libdir@|$libdir|" -e "s|@includedir@|$includedir|" \
    -e "s|@version@|$version|" -e "s|@private@|$private|" \
    "$here/adjoin.pc.in" >"$destdir$libdir/pkgconfig/adjoin.pc"
chmod 644 "$destdir$libdir/pkgconfig/adjoin.pc"
