# Every dependency is a Debian 12 package; tools/packages.txt lists their names.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(Protobuf REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(GTest REQUIRED)

# Target `target` for the first of these pkg-config modules that is there.
function(orrery_pkgconfig target)
  pkg_search_module(${target}_pc REQUIRED IMPORTED_TARGET ${ARGN})
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE PkgConfig::${target}_pc)
endfunction()
orrery_pkgconfig(hwy libhwy)
orrery_pkgconfig(pcre2 libpcre2-8)
orrery_pkgconfig(utf8proc libutf8proc)
orrery_pkgconfig(hdf5 hdf5-serial hdf5)  # where a parallel HDF5 stands beside it, never that one
