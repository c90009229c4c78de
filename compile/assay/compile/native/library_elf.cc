// The part of the System V ABI's dynamic linking (gabi 4.1, chapter 5) that a library of kernels needs: load
// segments, relocations against itself and against backend_symbol, constructors.
#if defined(__linux__)

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "library.h"

namespace assay {

namespace {

#if defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
constexpr uint32_t kRelative = R_AARCH64_RELATIVE, kAbsolute = R_AARCH64_ABS64;
constexpr uint32_t kData = R_AARCH64_GLOB_DAT, kJump = R_AARCH64_JUMP_SLOT;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr uint16_t kMachine = EM_RISCV;
constexpr uint32_t kRelative = R_RISCV_RELATIVE, kAbsolute = R_RISCV_64;
constexpr uint32_t kData = R_RISCV_64, kJump = R_RISCV_JUMP_SLOT;
#elif defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr uint32_t kRelative = R_X86_64_RELATIVE, kAbsolute = R_X86_64_64;
constexpr uint32_t kData = R_X86_64_GLOB_DAT, kJump = R_X86_64_JUMP_SLOT;
#else
#error "no relocations are known for this machine"
#endif

// The tables of the dynamic section, by tag; addresses relative to the base.
struct Dynamic {
  uint64_t symtab = 0, strtab = 0, strsz = 0, hash = 0, rela = 0, relasz = 0, jmprel = 0, pltrelsz = 0;
  uint64_t init_array = 0, init_arraysz = 0;
};

Dynamic read_dynamic(const Elf64_Dyn *entry, size_t count) {
  Dynamic found;
  for (size_t i = 0; i < count && entry[i].d_tag != DT_NULL; ++i) {
    const uint64_t value = entry[i].d_un.d_val;
    switch (entry[i].d_tag) {
      case DT_SYMTAB: found.symtab = value; break;
      case DT_STRTAB: found.strtab = value; break;
      case DT_STRSZ: found.strsz = value; break;
      case DT_HASH: found.hash = value; break;
      case DT_RELA: found.rela = value; break;
      case DT_RELASZ: found.relasz = value; break;
      case DT_JMPREL: found.jmprel = value; break;
      case DT_PLTRELSZ: found.pltrelsz = value; break;
      case DT_INIT_ARRAY: found.init_array = value; break;
      case DT_INIT_ARRAYSZ: found.init_arraysz = value; break;
      default: break;
    }
  }
  return found;
}

// The file's header and program headers, checked against its size.
const Elf64_Phdr *program_headers(const File &file, const char *path, size_t &count) {
  const Elf64_Ehdr *header = reinterpret_cast<const Elf64_Ehdr *>(file.data());
  if (file.size() < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_type != ET_DYN) {
    fail("%s is no shared library.", path);
    return nullptr;
  }
  if (header->e_machine != kMachine) {
    fail("%s is for another kind of machine (ELF machine %d instead of %d).", path, header->e_machine, kMachine);
    return nullptr;
  }
  count = header->e_phnum;
  if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff % 8 != 0 || header->e_phoff > file.size() ||
      count * sizeof(Elf64_Phdr) > file.size() - header->e_phoff) {
    fail("%s is damaged.", path);
    return nullptr;
  }
  return reinterpret_cast<const Elf64_Phdr *>(file.data() + header->e_phoff);
}

int protection(uint32_t flags) {
  return ((flags & PF_R) ? PROT_READ : 0) | ((flags & PF_W) ? PROT_WRITE : 0) | ((flags & PF_X) ? PROT_EXEC : 0);
}

bool apply(char *base, size_t span, const Elf64_Rela *entry, size_t count, const Elf64_Sym *symbols,
           size_t symbol_count, const char *names, const char *path) {
  for (const Elf64_Rela *each = entry; each < entry + count; ++each) {
    const uint32_t type = static_cast<uint32_t>(ELF64_R_TYPE(each->r_info));
    const size_t number = ELF64_R_SYM(each->r_info);
    if (each->r_offset > span - 8 || number >= symbol_count) return fail("%s is damaged.", path);
    uint64_t value = 0;
    if (type == kRelative) {
      value = reinterpret_cast<uint64_t>(base) + static_cast<uint64_t>(each->r_addend);
    } else if (type == kAbsolute || type == kData || type == kJump) {
      const Elf64_Sym &symbol = symbols[number];
      const char *name = names + symbol.st_name;
      if (symbol.st_shndx != SHN_UNDEF) {
        value = reinterpret_cast<uint64_t>(base) + symbol.st_value;
      } else {
        value = reinterpret_cast<uint64_t>(backend_symbol(name));
        if (value == 0 && ELF64_ST_BIND(symbol.st_info) != STB_WEAK)
          return fail("%s needs the function %s, which this runtime does not have.", path, name);
      }
      value += static_cast<uint64_t>(each->r_addend);
    } else {
      return fail("%s has a relocation of type %u, which this runtime does not know.", path, type);
    }
    memcpy(base + each->r_offset, &value, sizeof value);
  }
  return true;
}

}  // namespace

bool Library::load(const char *path) {
  File file;
  if (!file.open(path)) return false;
  size_t count = 0;
  const Elf64_Phdr *headers = program_headers(file, path, count);
  if (headers == nullptr) return false;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const Elf64_Phdr *dynamic = nullptr;
  for (size_t i = 0; i < count; ++i) {
    const Elf64_Phdr &each = headers[i];
    if (each.p_type == PT_DYNAMIC) dynamic = &each;
    if (each.p_type != PT_LOAD) continue;
    if (each.p_offset > file.size() || each.p_filesz > file.size() - each.p_offset || each.p_memsz > (1u << 31) ||
        each.p_filesz > each.p_memsz || each.p_vaddr > (1u << 31))
      return fail("%s is damaged.", path);
    const size_t end = rounded_up(each.p_vaddr + each.p_memsz, page);
    if (end > span_) span_ = end;
  }
  if (dynamic == nullptr || span_ == 0) return fail("%s is no shared library.", path);
  void *memory = mmap(nullptr, span_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail("%s cannot be loaded: no memory.", path);
  base_ = static_cast<char *>(memory);
  for (size_t i = 0; i < count; ++i)
    if (headers[i].p_type == PT_LOAD)
      memcpy(base_ + headers[i].p_vaddr, file.data() + headers[i].p_offset, headers[i].p_filesz);

  if (dynamic->p_vaddr + dynamic->p_memsz > span_) return fail("%s is damaged.", path);
  const Dynamic tables =
      read_dynamic(reinterpret_cast<const Elf64_Dyn *>(base_ + dynamic->p_vaddr), dynamic->p_memsz / sizeof(Elf64_Dyn));
  if (tables.hash == 0 || tables.hash > span_ - 8 || tables.symtab > span_ || tables.strtab > span_ ||
      tables.strsz > span_ - tables.strtab || tables.rela > span_ || tables.relasz > span_ - tables.rela ||
      tables.jmprel > span_ || tables.pltrelsz > span_ - tables.jmprel || tables.init_array > span_ ||
      tables.init_arraysz > span_ - tables.init_array)
    return fail("%s is damaged.", path);
  count_ = reinterpret_cast<const uint32_t *>(base_ + tables.hash)[1];  // chains: one for each symbol
  if (count_ > (span_ - tables.symtab) / sizeof(Elf64_Sym)) return fail("%s is damaged.", path);
  const Elf64_Sym *symbols = reinterpret_cast<const Elf64_Sym *>(base_ + tables.symtab);
  symbols_ = symbols;
  names_ = base_ + tables.strtab;
  for (size_t i = 0; i < count_; ++i)
    if (symbols[i].st_name >= tables.strsz && i > 0) return fail("%s is damaged.", path);
  const Elf64_Rela *relocations = reinterpret_cast<const Elf64_Rela *>(base_ + tables.rela);
  const Elf64_Rela *jumps = reinterpret_cast<const Elf64_Rela *>(base_ + tables.jmprel);
  if (!apply(base_, span_, relocations, tables.relasz / sizeof(Elf64_Rela), symbols, count_, names_, path) ||
      !apply(base_, span_, jumps, tables.pltrelsz / sizeof(Elf64_Rela), symbols, count_, names_, path))
    return false;
  for (size_t i = 0; i < count_; ++i) {
    void *function = symbols[i].st_shndx != SHN_UNDEF ? context_symbol(names_ + symbols[i].st_name) : nullptr;
    if (function != nullptr && symbols[i].st_value <= span_ - sizeof function)
      memcpy(base_ + symbols[i].st_value, &function, sizeof function);
  }
  for (size_t i = 0; i < count; ++i) {
    const Elf64_Phdr &each = headers[i];
    if (each.p_type != PT_LOAD || each.p_memsz == 0) continue;
    char *start = base_ + each.p_vaddr / page * page;
    const size_t bytes = rounded_up(each.p_vaddr % page + each.p_memsz, page);
    if (each.p_flags & PF_X) __builtin___clear_cache(start, start + bytes);
    if (mprotect(start, bytes, protection(each.p_flags)) != 0)
      return fail("%s cannot be made executable: the system forbids it.", path);
  }
  typedef void (*Constructor)();
  const Constructor *constructors = reinterpret_cast<const Constructor *>(base_ + tables.init_array);
  for (size_t i = 0; i < tables.init_arraysz / sizeof(Constructor); ++i)
    if (constructors[i] != nullptr) constructors[i]();
  return true;
}

void *Library::symbol(const char *name) const {
  const Elf64_Sym *symbols = static_cast<const Elf64_Sym *>(symbols_);
  for (size_t i = 1; i < count_; ++i)
    if (symbols[i].st_shndx != SHN_UNDEF && strcmp(names_ + symbols[i].st_name, name) == 0)
      return base_ + symbols[i].st_value;
  return nullptr;
}

Library::~Library() {
  if (base_ != nullptr) munmap(base_, span_);
}

}  // namespace assay

#endif
