#include "lowbit/report/table.h"

#include <gtest/gtest.h>

#include "lowbit/base/check.h"

namespace lowbit {
namespace {

TEST(Table, AlignsByCharactersNotBytes) {
  Table table({"name", ">value"});
  table.add({"é", "1"});
  table.add({"long name", "23"});
  EXPECT_EQ(table.text(),
            "name       value\n"
            "─────────  ─────\n"
            "é              1\n"
            "long name     23\n");
  EXPECT_THROW(table.add({"a", "b", "c"}), Error);
}

TEST(Table, HumanUnits) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(98'362'432), "93.8 MiB");
  EXPECT_EQ(human_count(134'515'008), "134.5 M");
  EXPECT_EQ(human_count(8'030'261'248.0), "8.03 B");
}

}  // namespace
}  // namespace lowbit
