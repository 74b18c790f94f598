// Where Hugging Face's libraries keep downloaded models.
#pragma once

#include <string>
#include <vector>

namespace lowbit {

// Folders to look in, by the rules of huggingface_hub: $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE,
// $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
std::vector<std::string> hub_cache_folders();

// Whether `model` could be "name" or "org/name".
bool is_hub_name(const std::string& model);

// The name of a model's folder in the cache: "models--org--name".
std::string hub_folder_name(const std::string& model);

// What the file refs/<revision> of a model's folder holds: the name of a commit, if nobody damaged
// it.
std::string read_ref(const std::string& file);

// The snapshot folder of "org/name" that refs/main names. Throws kIo saying where it looked.
std::string find_in_hub_cache(const std::string& model);

}  // namespace lowbit
