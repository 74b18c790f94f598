// What a repository of the hub holds at one commit, and which of it is wanted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lowbit::hub {

struct RemoteFile {
  std::string name;   // "folder/file.ext"
  int64_t size = -1;  // bytes; -1: not said
  // Names the blob: of files in LFS the SHA-256 of the content, of others git's SHA-1; of mirrors
  // perhaps something else. "": not said.
  std::string etag;
};

struct Listing {
  std::string commit;
  std::vector<RemoteFile> files;
};

// The answer of /api/models/ORG/NAME/revision/REVISION?blobs=true. Throws kCorruptFile if it is no
// such thing or a name in it could leave its folder.
Listing parse_listing(std::string_view json, const std::string& origin);

// Whether this can only name a file below the folder that it is put into.
bool is_safe_file_name(std::string_view name);
// Whether an ETag, stripped of W/ and quotes, may name a blob.
bool is_safe_etag(std::string_view etag);

struct Selection {
  std::vector<std::string> files;             // by name; each must be there
  std::vector<std::string> include, exclude;  // patterns with * ? [], where * matches / too
};

// The files that `selection` names. If it names none: what a model consists of, which is either
// safetensors with what belongs to them, or GGUF (all parts of one model; several models are an
// error that lists them). `repository` is for messages. Throws kInvalidArgument if nothing matches.
std::vector<RemoteFile> select_files(const Listing& listing, const Selection& selection,
                                     const std::string& repository);

}  // namespace lowbit::hub
