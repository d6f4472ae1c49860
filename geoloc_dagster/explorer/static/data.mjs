export async function mount(container) { container.append('…'); }
